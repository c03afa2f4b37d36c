package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
)

// A JSON object of exactly 200 bytes.
var data = []byte(`{"text":"` + strings.Repeat("x", 200-len(`{"text":""}`)) + `"}`)

type figures struct {
	Events     int     `json:"events"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

// bench sends count events, concurrency at a time, and reports what that cost
// this process. The first event that is not accepted makes it fail: figures of
// a run with refusals would look better than they are.
func bench(c cloudevents.Client, count, concurrency int, out io.Writer) error {
	started, cpu := time.Now(), cpuTime()
	if err := sendMany(c, count, concurrency); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(figures{
		Events:     count,
		Seconds:    time.Since(started).Seconds(),
		CPUSeconds: (cpuTime() - cpu).Seconds(),
	})
}

func sendMany(c cloudevents.Client, count, concurrency int) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var taken atomic.Int64
	var senders sync.WaitGroup
	for range concurrency {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for taken.Add(1) <= int64(count) && ctx.Err() == nil {
				if result := c.Send(ctx, newEvent()); !cloudevents.IsACK(result) {
					cancel(fmt.Errorf("not accepted: %w", result))
				}
			}
		}()
	}
	senders.Wait()
	return context.Cause(ctx)
}

func newEvent() cloudevents.Event {
	event := cloudevents.NewEvent()
	event.SetType("dev.wellhead.bench")
	event.SetSource("/bench")
	// Fails only for data it has to encode itself.
	_ = event.SetData(cloudevents.ApplicationJSON, data)
	return event
}

// cpuTime is what all threads of this process spent, in user and kernel mode.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // only for arguments it does not know
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
