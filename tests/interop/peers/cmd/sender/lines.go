package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// A test shall see a sink that hangs as an error, not hang itself.
const timeout = 30 * time.Second

type line struct {
	Event json.RawMessage `json:"event"`
	Mode  string          `json:"mode"`
}

// outcome answers one line. Status is 0 where no sink answered; Error is empty
// exactly when the sink accepted the event.
type outcome struct {
	ID     string `json:"id"`
	Status int    `json:"status"`
	Error  string `json:"error"`
}

// sendLines answers every line with one line, in order and before it reads the
// next, whatever is wrong with it. No retries: a test wants the first answer.
func sendLines(c cloudevents.Client, in io.Reader, out io.Writer) error {
	answers := json.NewEncoder(out)
	answers.SetEscapeHTML(false)
	lines := bufio.NewReader(in) // not a Scanner: events may exceed its 64 KiB
	for {
		text, err := lines.ReadBytes('\n')
		if len(text) > 0 {
			if err := answers.Encode(sendLine(c, text)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func sendLine(c cloudevents.Client, text []byte) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	event, ctx, err := readLine(ctx, text)
	if err != nil {
		return outcome{ID: event.ID(), Error: err.Error()}
	}
	return outcomeOf(event.ID(), c.Send(ctx, event))
}

func readLine(ctx context.Context, text []byte) (cloudevents.Event, context.Context, error) {
	var l line
	var event cloudevents.Event
	if err := json.Unmarshal(text, &l); err != nil {
		return event, ctx, err
	}
	// The SDK refuses a blank before data_base64, and takes one before data for
	// a part of it. A line may be written with blanks all the same.
	var compact bytes.Buffer
	if err := json.Compact(&compact, l.Event); err != nil {
		return event, ctx, err
	}
	if err := json.Unmarshal(compact.Bytes(), &event); err != nil {
		return event, ctx, err
	}
	switch l.Mode {
	case "binary":
		return event, cloudevents.WithEncodingBinary(ctx), nil
	case "structured":
		return event, cloudevents.WithEncodingStructured(ctx), nil
	default:
		return event, ctx, fmt.Errorf("mode %q: want binary or structured", l.Mode)
	}
}

// outcomeOf looks at the status: the SDK returns every HTTP answer, 202 too, as
// a non-nil error. The text of a refusal holds the sink's own words.
func outcomeOf(id string, result cloudevents.Result) outcome {
	var answer *cehttp.Result
	if !cloudevents.ResultAs(result, &answer) {
		return outcome{ID: id, Error: fmt.Sprint(result)}
	}
	if answer.StatusCode/100 == 2 {
		return outcome{ID: id, Status: answer.StatusCode}
	}
	return outcome{ID: id, Status: answer.StatusCode, Error: result.Error()}
}
