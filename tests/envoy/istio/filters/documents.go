package main

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config"
	validator "istio.io/istio/pkg/config/crd"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/resource"
)

// verdict is what becomes of one document on its way into a cluster.
type verdict struct {
	Schema  string `json:"schema,omitempty"`  // why the API server refuses it, by Istio's CRDs
	Webhook string `json:"webhook,omitempty"` // why Istio's webhook does, which sees only what the API server lets pass
	Warning string `json:"warning,omitempty"` // what the webhook says of it
}

// read gives the policy that a document is, if it may be in a cluster.
func read(document string, schemas *validator.Validator) (*config.Config, verdict) {
	found := verdict{}
	raw, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		return nil, verdict{Schema: err.Error()}
	}
	object := &unstructured.Unstructured{}
	if err := json.Unmarshal(raw, object); err != nil {
		return nil, verdict{Schema: err.Error()}
	}
	if err := schemas.ValidateCustomResource(object); err != nil {
		found.Schema = err.Error()
	}
	policy, warning, err := admit(raw)
	if err != nil {
		found.Webhook = err.Error()
	}
	if warning != nil {
		found.Warning = warning.Error()
	}
	if found.Schema != "" || found.Webhook != "" {
		return nil, found
	}
	return policy, found
}

// admit does what Istio's webhook does with an object (pkg/webhooks/validation/server).
func admit(raw []byte) (*config.Config, error, error) {
	var object crd.IstioKind
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, nil, fmt.Errorf("cannot decode configuration: %v", err)
	}
	kind := object.GroupVersionKind()
	schema, exists := collections.Pilot.FindByGroupKind(resource.FromKubernetesGVK(&kind))
	if !exists {
		return nil, nil, fmt.Errorf("unrecognized type %v", kind)
	}
	policy, err := crd.ConvertObject(schema, &object, "cluster.local")
	if err != nil {
		return nil, nil, fmt.Errorf("error decoding configuration: %v", err)
	}
	warning, err := schema.ValidateConfig(*policy)
	return policy, warning, err
}
