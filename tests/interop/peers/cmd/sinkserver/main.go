// Command sinkserver is the cheapest honest sink: it reads the body and
// answers 202. Benchmarks of clients measure against it, so it knows nothing
// of CloudEvents. GET tells how many requests it has accepted, and when, in
// seconds since 1970, the first and the last.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"sync/atomic"
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
	var accepted, first, last atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/json")
			// Fails only where whoever asked has gone.
			_ = json.NewEncoder(w).Encode(map[string]float64{
				"accepted": float64(accepted.Load()),
				"first":    float64(first.Load()) / 1e9,
				"last":     float64(last.Load()) / 1e9,
			})
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			// Half a body is not an accepted event.
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if delay > 0 {
			time.Sleep(delay)
		}
		w.WriteHeader(http.StatusAccepted)
		now := time.Now().UnixNano()
		first.CompareAndSwap(0, now)
		last.Store(now)
		accepted.Add(1)
	}
}
