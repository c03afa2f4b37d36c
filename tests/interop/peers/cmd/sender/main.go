// Command sender sends CloudEvents with the Go SDK, as Knative's Go adapters
// do. Without -count it sends what it reads on stdin (lines.go); with -count
// it is the peer in our benchmarks (bench.go).
package main

import (
	"flag"
	"log"
	"net/http"
	"os"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/client"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"wellhead.invalid/peers/internal/peer"
)

func main() {
	log.SetFlags(0)
	sink := flag.String("sink", "", "URL of the sink")
	count := flag.Int("count", 0, "benchmark: send this many generated events instead of stdin")
	concurrency := flag.Int("concurrency", 1, "benchmark: this many sends at a time")
	peer.CoresFlag()
	flag.Parse()
	if *sink == "" || *count < 0 || *concurrency < 1 {
		log.Fatal("sender: -sink is required, -count must not be negative, -concurrency must be at least 1")
	}

	if err := run(*sink, *count, *concurrency); err != nil {
		log.Fatal("sender: ", err)
	}
}

func run(sink string, count, concurrency int) error {
	if count == 0 {
		c, err := newClient(sink, 1)
		if err != nil {
			return err
		}
		return sendLines(c, os.Stdin, os.Stdout)
	}
	// An adapter leaves ids and times to the SDK, so their cost belongs here.
	c, err := newClient(sink, concurrency, client.WithTimeNow(), client.WithUUIDs())
	if err != nil {
		return err
	}
	return bench(c, count, concurrency, os.Stdout)
}

// newClient makes a client as Knative's adapters do, but one that keeps a
// connection for every concurrent send. Go's defaults are 2 idle connections
// a host, 100 in all: beyond those each send dials anew, and the benchmark
// would measure dialling.
func newClient(sink string, concurrency int, opts ...client.Option) (cloudevents.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = concurrency
	transport.MaxIdleConns = max(transport.MaxIdleConns, concurrency)
	protocol, err := cehttp.New(cehttp.WithTarget(sink), cehttp.WithRoundTripper(transport))
	if err != nil {
		return nil, err
	}
	return client.New(protocol, opts...)
}
