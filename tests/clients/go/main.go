// Drives any number of Go SignalR clients on behalf of the end-to-end tests.
//
//	in:  {"id":1,"op":"open",...}
//	out: {"id":1,"ok":true,"result":...}  or  {"id":1,"ok":false,"error":"text"}  or  {"event":"...",...}
//
// Commands run concurrently: a reply carries the id of its command. The process ends when the pipe closes.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

const lineMaxBytes = 16 * 1024 * 1024

// One command of the tests. Each op uses some of the fields.
type command struct {
	ID              int64            `json:"id"`
	Op              string           `json:"op"`
	Client          string           `json:"client"`
	URL             string           `json:"url"`
	Protocol        string           `json:"protocol"`
	Transport       string           `json:"transport"`
	AccessToken     string           `json:"accessToken"`
	ReconnectDelays []int            `json:"reconnectDelays"`
	Answers         map[string]order `json:"answers"`
	Target          string           `json:"target"`
	Arguments       []interface{}    `json:"arguments"`
	Subject         string           `json:"subject"`
	Items           []interface{}    `json:"items"`
}

// Behaviour of a client when a result is requested.
type order struct {
	Value  interface{} `json:"value"`
	Throws string      `json:"throws"`
}

type line map[string]interface{}

var output sync.Mutex

func emit(told line) {
	text, err := json.Marshal(plain(map[string]interface{}(told)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "this can't be written as JSON:", err)
		os.Exit(1)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(text))
}

func answer(asked command) {
	result, err := run(asked)
	if err != nil {
		emit(line{"id": asked.ID, "ok": false, "error": err.Error()})
	} else {
		emit(line{"id": asked.ID, "ok": true, "result": result})
	}
}

func run(asked command) (interface{}, error) {
	if asked.Op == "open" {
		return openClient(asked)
	}
	driven, err := clientNamed(asked.Client)
	if err != nil {
		return nil, err
	}
	switch asked.Op {
	case "invoke":
		return driven.invoke(asked.Target, asked.Arguments)
	case "send":
		return nil, <-driven.signalr.Send(asked.Target, asked.Arguments...)
	case "stream":
		return driven.stream(asked.Target, asked.Arguments)
	case "upload":
		driven.upload(asked.Subject)
		return nil, nil
	case "feed":
		driven.feed(asked.Subject, asked.Items)
		return nil, nil
	case "complete":
		driven.complete(asked.Subject)
		return nil, nil
	case "close":
		driven.close()
		return nil, nil
	}
	return nil, fmt.Errorf("this library's clients know no `%s`", asked.Op)
}

// Values like an app's: whole numbers are integers, which MessagePack distinguishes from floats, and keys are texts.
func plain(value interface{}) interface{} {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole
		}
		fraction, _ := value.Float64()
		return fraction
	case []interface{}:
		for number, item := range value {
			value[number] = plain(item)
		}
	case map[string]interface{}:
		for name, item := range value {
			value[name] = plain(item)
		}
	case map[interface{}]interface{}:
		named := map[string]interface{}{}
		for name, item := range value {
			named[fmt.Sprint(name)] = plain(item)
		}
		return named
	case line:
		return plain(map[string]interface{}(value))
	}
	return value
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineMaxBytes)
	for lines.Scan() {
		var asked command
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.UseNumber()
		if err := decoder.Decode(&asked); err != nil {
			fmt.Fprintln(os.Stderr, "a command that is no JSON:", err)
			os.Exit(1)
		}
		asked.Arguments, _ = plain(asked.Arguments).([]interface{})
		asked.Items, _ = plain(asked.Items).([]interface{})
		go answer(asked)
	}
}
