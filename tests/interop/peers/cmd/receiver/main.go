// Command receiver prints every CloudEvent it gets over HTTP as Knative's
// event_display does, byte for byte. It ends on SIGTERM at once, requests in
// flight included, also as event_display does: hence no signal handling here.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strings"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"wellhead.invalid/peers/internal/peer"
)

func main() {
	port := flag.Int("port", 0, "port on loopback; 0 chooses a free one")
	quiet := flag.Bool("quiet", false, "print no events (for benchmarks)")
	peer.CoresFlag()
	flag.Parse()

	listener, err := peer.Listen(*port)
	if err != nil {
		log.Fatal(err)
	}
	client, err := cloudevents.NewClientHTTP(cehttp.WithListener(listener), cehttp.WithMiddleware(healthz), cehttp.WithMiddleware(batches))
	if err != nil {
		log.Fatal(err)
	}
	receive := display
	if *quiet {
		receive = discard
	}
	log.Fatal(client.StartReceiver(context.Background(), receive))
}

// display prints before the SDK answers 200, in one write: an accepted event
// is on stdout, whole, when the sender learns of it.
func display(event cloudevents.Event) {
	fmt.Printf("☁️  cloudevents.Event\n%s", event)
}

func discard(cloudevents.Event) {}

// batches reads at /batch what the SDK's receiver leaves to its users, with the
// SDK's own reader. An event of the type "refused" refuses its batch.
func batches(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.RequestURI, "/batch") {
			next.ServeHTTP(w, r)
			return
		}
		events, err := cehttp.NewEventsFromHTTPRequest(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnsupportedMediaType)
			return
		}
		for _, event := range events {
			if err := event.Validate(); err != nil || event.Type() == "refused" {
				http.Error(w, "an event of the batch is refused", http.StatusUnprocessableEntity)
				return
			}
		}
		for _, event := range events {
			display(event)
		}
	})
}

// healthz compares the request line's target, as Knative does: no other
// spelling of the path and no query is a probe.
func healthz(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "/healthz" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
