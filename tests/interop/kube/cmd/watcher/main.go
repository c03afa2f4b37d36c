// The peer in benches of ApiServerSource: what an adapter on client-go and the CloudEvents SDK for Go does, in the
// least code. A reflector watches ConfigMaps; each change on the stream is sent, with the object as data, before the
// next is taken; what a list shows is not told.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// A store that keeps nothing and sends everything.
type sender struct {
	ctx    context.Context
	client cloudevents.Client
	source string
	ready  bool
}

func (s *sender) send(object any, operation string) error {
	body := object.(*unstructured.Unstructured)
	event := cloudevents.NewEvent()
	event.SetType("dev.knative.apiserver.resource." + operation)
	event.SetSource(s.source)
	event.SetSubject(fmt.Sprintf("/apis/v1/namespaces/%s/configmaps/%s", body.GetNamespace(), body.GetName()))
	event.SetExtension("kind", body.GetKind())
	event.SetExtension("apiversion", body.GetAPIVersion())
	event.SetExtension("name", body.GetName())
	event.SetExtension("namespace", body.GetNamespace())
	if err := event.SetData(cloudevents.ApplicationJSON, body); err != nil {
		return err
	}
	if result := s.client.Send(s.ctx, event); !cloudevents.IsACK(result) {
		fmt.Fprintln(os.Stderr, "lost:", result)
	}
	return nil
}

func (s *sender) Add(object any) error    { return s.send(object, "add") }
func (s *sender) Update(object any) error { return s.send(object, "update") }
func (s *sender) Delete(object any) error { return s.send(object, "delete") }
func (s *sender) Replace([]any, string) error {
	if !s.ready {
		s.ready = true
		fmt.Fprintln(os.Stderr, "ready")
	}
	return nil
}
func (s *sender) Resync() error                      { return nil }
func (s *sender) List() []any                        { return nil }
func (s *sender) ListKeys() []string                 { return nil }
func (s *sender) Get(any) (any, bool, error)         { return nil, false, nil }
func (s *sender) GetByKey(string) (any, bool, error) { return nil, false, nil }

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "where the API server is")
	namespace := flag.String("namespace", "default", "what is watched")
	sink := flag.String("sink", "", "where events go")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 1000
	cluster, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	client, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(*sink))
	if err != nil {
		return err
	}
	ctx := cloudevents.ContextWithRetriesExponentialBackoff(context.Background(), 50_000_000, 5)
	maps := cluster.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(*namespace)
	lister := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return maps.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return maps.Watch(ctx, options)
		},
	}
	store := &sender{ctx: ctx, client: client, source: config.Host}
	cache.NewReflector(lister, &unstructured.Unstructured{}, store, 0).RunWithContext(ctx)
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
