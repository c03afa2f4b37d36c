package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/hashicorp/go-retryablehttp"
	"go.opencensus.io/plugin/ochttp"
	"go.opencensus.io/plugin/ochttp/propagation/tracecontext"
	"go.opencensus.io/stats"
	"go.opencensus.io/stats/view"
	"go.opencensus.io/tag"
	"go.opencensus.io/trace"
	"go.uber.org/zap"
)

const (
	retries      = 5
	firstBackoff = 50 * time.Millisecond
)

// newSender makes what works as Knative's does, or with bare the least.
func newSender(sink string, bare bool) (sender, error) {
	// Knative's defaults: a connection kept for each of up to 100 requests at a time.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 1000
	transport.MaxIdleConnsPerHost = 100
	if bare {
		return &bareSender{client: &http.Client{Transport: transport}, sink: sink}, nil
	}
	logger, err := zap.NewProduction() // which drops most of many that are alike
	if err != nil {
		return nil, err
	}
	// No tracing backend is configured, as is Knative's default: spans are made and passed on, none is sampled.
	trace.ApplyConfig(trace.Config{DefaultSampler: trace.NeverSample()})
	if err := view.Register(eventCountView); err != nil {
		return nil, err
	}
	return &tracedSender{
		client: &http.Client{Transport: &ochttp.Transport{Base: transport, Propagation: &tracecontext.HTTPFormat{}}},
		sink:   sink,
		logger: logger.Sugar(),
	}, nil
}

type tracedSender struct {
	client *http.Client
	sink   string
	logger *zap.SugaredLogger
}

func (s *tracedSender) send(ctx context.Context, record *sarama.ConsumerMessage) error {
	message := kafka_sarama.NewMessageFromConsumerMessage(record)
	if _, traced := message.Headers["traceparent"]; !traced {
		s.logger.Warn("record carries no span: a new one is begun")
	}
	ctx, span := trace.StartSpan(ctx, "kafka-source-"+record.Topic)
	defer span.End()

	request, err := s.request(ctx, message, record)
	if err != nil {
		return err
	}
	client := retryablehttp.Client{
		HTTPClient:   s.client,
		RetryMax:     retries,
		CheckRetry:   mayRetry,
		Backoff:      backoff,
		ErrorHandler: func(response *http.Response, err error, _ int) (*http.Response, error) { return response, err },
	}
	retryable, err := retryablehttp.FromRequest(request)
	if err != nil {
		return err
	}
	response, err := client.Do(retryable)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // else the connection is not used again
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("the sink answers %d", response.StatusCode)
	}
	return countEvent(response.StatusCode)
}

func (s *tracedSender) request(ctx context.Context, message binding.Message, record *sarama.ConsumerMessage) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.sink, nil)
	if err != nil {
		return nil, err
	}
	if message.ReadEncoding() != binding.EncodingUnknown {
		return nil, fmt.Errorf("record %d is an event itself, which this peer does not send", record.Offset)
	}
	return request, cehttp.WriteRequest(ctx, binding.ToMessage(wrapped(record)), request)
}

// mayRetry says yes to what Knative's SelectiveRetry does.
func mayRetry(_ context.Context, response *http.Response, err error) (bool, error) {
	if response == nil || err != nil {
		return true, nil
	}
	switch response.StatusCode {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return true, nil
	}
	return response.StatusCode >= 500 || response.StatusCode == -1, nil
}

func backoff(_, _ time.Duration, attempt int, _ *http.Response) time.Duration {
	return firstBackoff * time.Duration(math.Exp2(float64(attempt)))
}

var (
	eventCount     = stats.Int64("event_count", "Number of events sent", stats.UnitDimensionless)
	namespaceKey   = tag.MustNewKey("namespace_name")
	sourceKey      = tag.MustNewKey("event_source")
	typeKey        = tag.MustNewKey("event_type")
	nameKey        = tag.MustNewKey("name")
	groupKey       = tag.MustNewKey("resource_group")
	codeKey        = tag.MustNewKey("response_code")
	codeClassKey   = tag.MustNewKey("response_code_class")
	errorKey       = tag.MustNewKey("response_error")
	eventCountView = &view.View{
		Measure:     eventCount,
		Aggregation: view.Count(),
		TagKeys:     []tag.Key{namespaceKey, sourceKey, typeKey, nameKey, groupKey, codeKey, codeClassKey, errorKey},
	}
)

func countEvent(status int) error {
	ctx, err := tag.New(context.Background(),
		tag.Insert(namespaceKey, "default"),
		tag.Insert(sourceKey, ""),
		tag.Insert(typeKey, ""),
		tag.Insert(nameKey, "bench"),
		tag.Insert(groupKey, "kafkasources.sources.knative.dev"),
		tag.Insert(codeKey, strconv.Itoa(status)),
		tag.Insert(codeClassKey, strconv.Itoa(status/100)+"xx"),
		tag.Insert(errorKey, ""),
	)
	if err != nil {
		return err
	}
	stats.Record(ctx, eventCount.M(1))
	return nil
}

type bareSender struct {
	client *http.Client
	sink   string
}

func (s *bareSender) send(ctx context.Context, record *sarama.ConsumerMessage) error {
	event := wrapped(record)
	var err error
	for attempt := range retries + 1 {
		if attempt > 0 {
			time.Sleep(firstBackoff << (attempt - 1))
		}
		if err = s.try(ctx, event); err == nil {
			return nil
		}
	}
	return err
}

func (s *bareSender) try(ctx context.Context, event *cloudevents.Event) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.sink, nil)
	if err != nil {
		return err
	}
	if err := cehttp.WriteRequest(ctx, binding.ToMessage(event), request); err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("the sink answers %d", response.StatusCode)
	}
	return nil
}

// wrapped is the event that Knative makes of a record that is none itself.
func wrapped(record *sarama.ConsumerMessage) *cloudevents.Event {
	event := cloudevents.NewEvent()
	event.SetID(fmt.Sprintf("partition:%d/offset:%d", record.Partition, record.Offset))
	event.SetTime(record.Timestamp)
	event.SetType("dev.knative.kafka.event")
	event.SetSource("/apis/v1/namespaces/default/kafkasources/bench#" + record.Topic)
	event.SetSubject(fmt.Sprintf("partition:%d#%d", record.Partition, record.Offset))
	if len(record.Key) > 0 {
		event.SetExtension("key", string(record.Key))
	}
	event.DataEncoded = record.Value
	return &event
}
