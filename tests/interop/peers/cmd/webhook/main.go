// Command webhook is what a Go program of net/http and the SDK makes of GitLab's
// webhooks: it checks the token and the JSON, sends the body on as an event,
// and answers 202 once the sink has accepted it. Benchmarks measure against it;
// of everything else that our adapter does, it does nothing.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"strings"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"wellhead.invalid/peers/internal/peer"
)

const largestBody = 25 << 20

func main() {
	port := flag.Int("port", 0, "port on loopback; 0 chooses a free one")
	sink := flag.String("sink", "", "URL of the sink")
	token := flag.String("token", "", "what GitLab shows as X-Gitlab-Token")
	peer.CoresFlag()
	flag.Parse()

	// As many connections kept as requests come at once, where Go keeps two.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1000
	client, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(*sink), cloudevents.WithRoundTripper(transport))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := peer.Listen(*port)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, pass(client, *token)))
}

func pass(client cloudevents.Client, token string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Gitlab-Token")), []byte(token)) != 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestBody))
		if err != nil || !json.Valid(body) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		name := r.Header.Get("X-Gitlab-Event")
		event := cloudevents.NewEvent()
		event.SetID(r.Header.Get("Idempotency-Key"))
		event.SetSource("https://gitlab.example.com/group/project")
		event.SetType("dev.knative.sources.gitlab." + strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(name, " Hook")), " ", "_"))
		event.SetExtension("comgitlabevent", name)
		if err := event.SetData(cloudevents.ApplicationJSON, body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if result := client.Send(r.Context(), event); !cloudevents.IsACK(result) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}
}
