package main

import "github.com/philippseith/signalr"

// The library calls methods of this by the names of the targets, each in a goroutine of its own.
type receiver struct {
	signalr.Receiver
	client  string
	answers map[string]order
}

func (r *receiver) tell(target string, arguments ...interface{}) {
	emit(line{"event": "message", "client": r.client, "target": target, "arguments": arguments})
}

// Announced is for messages of the hub `/calls`.
func (r *receiver) Announced(text interface{}) { r.tell("Announced", text) }

// Received is for messages of the hub `/sends`.
func (r *receiver) Received(tag interface{}) { r.tell("Received", tag) }

// Taken is for messages about the items of an upload.
func (r *receiver) Taken(number interface{}) { r.tell("Taken", number) }

// Value is asked for a result.
func (r *receiver) Value(_ interface{}) interface{} { return plain(r.answers["Value"].Value) }

// Throw is asked for a result, and panics.
func (r *receiver) Throw(_ interface{}) interface{} { panic(r.answers["Throw"].Throws) }
