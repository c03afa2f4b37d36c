// Command sinkserver is the cheapest honest sink: it reads the body and
// answers 202. Benchmarks of clients measure against it, so it knows nothing
// of CloudEvents.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
	"time"

	"wellhead.invalid/peers/internal/peer"
)

func main() {
	port := flag.Int("port", 0, "port on loopback; 0 chooses a free one")
	delay := flag.Duration("delay", 0, "wait this long before each answer")
	peer.CoresFlag()
	flag.Parse()

	listener, err := peer.Listen(*port)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, accept(*delay)))
}

func accept(delay time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			// Half a body is not an accepted event.
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if delay > 0 {
			time.Sleep(delay)
		}
		w.WriteHeader(http.StatusAccepted)
	}
}
