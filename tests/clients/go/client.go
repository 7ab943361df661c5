package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/go-kit/log"
	"github.com/philippseith/signalr"
)

// Pause between two reconnect attempts.
const retryInterval = 50 * time.Millisecond

// Longer than any test message, because the library truncates longer ones.
const messageMaxBytes = 1024 * 1024

// Longer than any test: with MessagePack the library ignores separate pings, and would consider the server gone.
const patience = time.Hour

// Maximum queued state changes. The library holds a lock while it reports one.
const stateBuffer = 64

var (
	clients    = map[string]*client{}
	clientsMux sync.Mutex
)

// Client of the library, with its uploads.
type client struct {
	name    string
	signalr signalr.Client
	uploads map[string]chan interface{}
	mux     sync.Mutex
	// Id of the current connection.
	id string
	// The end is reported once.
	end sync.Once
}

func clientNamed(name string) (*client, error) {
	clientsMux.Lock()
	defer clientsMux.Unlock()
	if found, ok := clients[name]; ok {
		return found, nil
	}
	return nil, fmt.Errorf("there is no client %s", name)
}

func openClient(asked command) (interface{}, error) {
	driven := &client{name: asked.Client, uploads: map[string]chan interface{}{}}
	connect := func() (signalr.Connection, error) { return driven.connect(asked) }
	// A client with a connector reconnects automatically, unlike one with a connection.
	way := signalr.WithConnector(connect)
	if asked.ReconnectDelays == nil {
		connection, err := connect()
		if err != nil {
			return nil, err
		}
		way = signalr.WithConnection(connection)
	}
	format := signalr.TransferFormatText
	if asked.Protocol == "messagepack" {
		format = signalr.TransferFormatBinary
	}
	made, err := signalr.NewClient(context.Background(),
		way,
		signalr.WithReceiver(&receiver{client: asked.Client, answers: asked.Answers}),
		signalr.TransferFormat(format),
		signalr.MaximumReceiveMessageSize(messageMaxBytes),
		signalr.TimeoutInterval(patience),
		signalr.WithBackoff(func() backoff.BackOff { return backoff.NewConstantBackOff(retryInterval) }),
		signalr.Logger(log.NewLogfmtLogger(os.Stderr), false))
	if err != nil {
		return nil, err
	}
	driven.signalr = made
	made.Start()
	if err := <-made.WaitForState(context.Background(), signalr.ClientConnected); err != nil {
		return nil, err
	}
	states := make(chan signalr.ClientState, stateBuffer)
	made.ObserveStateChanged(states)
	go driven.tell(states)
	clientsMux.Lock()
	clients[asked.Client] = driven
	clientsMux.Unlock()
	return line{"connectionId": driven.connectionID()}, nil
}

func (c *client) connect(asked command) (signalr.Connection, error) {
	headers := func() http.Header {
		headers := http.Header{}
		if asked.AccessToken != "" {
			headers.Set("Authorization", "Bearer "+asked.AccessToken)
		}
		return headers
	}
	transport := signalr.TransportWebSockets
	if asked.Transport != "" {
		transport = signalr.TransportType(asked.Transport)
	}
	connection, err := signalr.NewHTTPConnection(context.Background(), asked.URL,
		signalr.WithHTTPHeaders(headers), signalr.WithTransports(transport))
	if err != nil {
		return nil, err
	}
	c.mux.Lock()
	defer c.mux.Unlock()
	c.id = connection.ConnectionID()
	return connection, nil
}

func (c *client) connectionID() string {
	c.mux.Lock()
	defer c.mux.Unlock()
	return c.id
}

// Reports ends of connections, and new connections.
func (c *client) tell(states <-chan signalr.ClientState) {
	for state := range states {
		switch state {
		case signalr.ClientConnecting:
			emit(line{"event": "reconnecting", "client": c.name})
		case signalr.ClientConnected:
			emit(line{"event": "reconnected", "client": c.name, "connectionId": c.connectionID()})
		case signalr.ClientClosed:
			c.tellEnd()
			return
		}
	}
}

func (c *client) tellEnd() {
	c.end.Do(func() { emit(line{"event": "closed", "client": c.name, "error": nil}) })
}

// Stops the client. State observers may miss this, because the library drops queued changes when it stops.
func (c *client) close() {
	c.signalr.Stop()
	c.tellEnd()
}

func (c *client) invoke(target string, arguments []interface{}) (interface{}, error) {
	call := c.signalr.Invoke
	for number, argument := range arguments {
		if upload := c.uploadOf(argument); upload != nil {
			arguments[number] = upload
			call = c.signalr.PushStreams
		}
	}
	// A value and a nil error arrive in either order; a method without a result sends neither.
	var value interface{}
	for result := range call(target, arguments...) {
		if result.Error != nil {
			return nil, result.Error
		}
		if result.Value != nil {
			value = result.Value
		}
	}
	return value, nil
}

func (c *client) stream(target string, arguments []interface{}) (interface{}, error) {
	items := []interface{}{}
	for item := range c.signalr.PullStream(target, arguments...) {
		if item.Error != nil {
			return line{"items": items, "error": item.Error.Error()}, nil
		}
		items = append(items, item.Value)
	}
	return line{"items": items, "error": nil}, nil
}

func (c *client) upload(name string) {
	c.mux.Lock()
	defer c.mux.Unlock()
	c.uploads[name] = make(chan interface{})
}

func (c *client) uploadOf(argument interface{}) chan interface{} {
	if placeholder, ok := argument.(map[string]interface{}); ok {
		if name, ok := placeholder["$subject"].(string); ok {
			return c.uploadNamed(name)
		}
	}
	return nil
}

func (c *client) uploadNamed(name string) chan interface{} {
	c.mux.Lock()
	defer c.mux.Unlock()
	return c.uploads[name]
}

func (c *client) feed(name string, items []interface{}) {
	upload := c.uploadNamed(name)
	for _, item := range items {
		upload <- item
	}
}

func (c *client) complete(name string) {
	close(c.uploadNamed(name))
}
