// Renders a Helm chart with the libraries that Helm uses: Go's templates and Sprig, both from Debian.
//
//	chart FOLDER RELEASE [NAME=JSON...]
//
// The given values (`drain.timeout=5`) override those of values.yaml. Only the Helm functions that the chart uses are
// available. Functions that query a cluster (lookup, hooks) are not.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

type values = map[string]interface{}

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: chart FOLDER RELEASE [NAME=JSON...]"))
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3:])
	fail(err)
	fmt.Print(text)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func render(folder, release string, changes []string) (string, error) {
	chart, err := read(filepath.Join(folder, "Chart.yaml"))
	if err != nil {
		return "", err
	}
	set, err := read(filepath.Join(folder, "values.yaml"))
	if err != nil {
		return "", err
	}
	for _, change := range changes {
		if err := put(set, change); err != nil {
			return "", err
		}
	}
	data := values{
		"Values":  set,
		"Chart":   values{"Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"]},
		"Release": values{"Name": release, "Namespace": "default", "Service": "Helm"},
	}
	return execute(folder, data)
}

func execute(folder string, data values) (string, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "templates", "*"))
	if err != nil {
		return "", err
	}
	sort.Strings(paths)
	all := template.New("chart").Option("missingkey=zero")
	all.Funcs(sprig.TxtFuncMap()).Funcs(template.FuncMap{
		"toYaml": toYaml,
		"include": func(name string, data interface{}) (string, error) {
			var text bytes.Buffer
			err := all.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
	})
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if _, err := all.New(filepath.Base(path)).Parse(string(text)); err != nil {
			return "", err
		}
	}
	var rendered strings.Builder
	for _, path := range paths {
		name := filepath.Base(path)
		var text bytes.Buffer
		if err := all.ExecuteTemplate(&text, name, data); err != nil {
			return "", err
		}
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(text.String()) != "" {
			fmt.Fprintf(&rendered, "---\n# Source: %s\n%s\n", name, strings.TrimSpace(text.String()))
		}
	}
	return rendered.String(), nil
}

func read(path string) (values, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	read := values{}
	return read, yaml.Unmarshal(text, &read)
}

func put(set values, change string) error {
	name, text, found := strings.Cut(change, "=")
	if !found {
		return fmt.Errorf("%s: NAME=JSON", change)
	}
	var value interface{}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("%s: %w", change, err)
	}
	steps := strings.Split(name, ".")
	for _, step := range steps[:len(steps)-1] {
		next, isMap := set[step].(values)
		if !isMap {
			return fmt.Errorf("%s: the chart has no value of that name", change)
		}
		set = next
	}
	last := steps[len(steps)-1]
	if _, isThere := set[last]; !isThere {
		return fmt.Errorf("%s: the chart has no value of that name", change)
	}
	set[last] = value
	return nil
}

func toYaml(value interface{}) (string, error) {
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	err := encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n"), err
}
