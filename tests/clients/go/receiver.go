package main

import "github.com/philippseith/signalr"

// The library calls the method with the name of the target, each in a separate goroutine.
type receiver struct {
	signalr.Receiver
	client  string
	answers map[string]order
}

func (r *receiver) tell(target string, arguments ...interface{}) {
	emit(line{"event": "message", "client": r.client, "target": target, "arguments": arguments})
}

// Announced receives messages of the hub `/calls`.
func (r *receiver) Announced(text interface{}) { r.tell("Announced", text) }

// Received receives messages of the hub `/sends`.
func (r *receiver) Received(tag interface{}) { r.tell("Received", tag) }

// Taken receives messages about the items of an upload.
func (r *receiver) Taken(number interface{}) { r.tell("Taken", number) }

// Value returns a client result.
func (r *receiver) Value(_ interface{}) interface{} { return plain(r.answers["Value"].Value) }

// Throw panics instead of returning a client result.
func (r *receiver) Throw(_ interface{}) interface{} { panic(r.answers["Throw"].Throws) }
