// Fan-out with Centrifuge, the library behind Centrifugo: messages of a client go to all clients, calls are echoed.
//
//	centrifuge HOST:PORT [compress]
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"runtime"

	"github.com/centrifugal/centrifuge"
)

// channel has all clients as subscribers.
const channel = "all"

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: centrifuge HOST:PORT [compress]")
	}
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnMessage(func(sent centrifuge.MessageEvent) {
			if _, err := node.Publish(channel, sent.Data); err != nil {
				log.Print(err)
			}
		})
		client.OnRPC(func(call centrifuge.RPCEvent, answer centrifuge.RPCCallback) {
			answer(centrifuge.RPCReply{Data: call.Data}, nil)
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{Compression: len(os.Args) > 2, CompressionLevel: 6}))
	log.Printf("%s, %d threads", os.Args[1], runtime.GOMAXPROCS(0))
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
