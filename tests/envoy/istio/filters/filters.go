package main

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/api/security/v1beta1"
	"istio.io/istio/pilot/pkg/config/memory"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/networking"
	authnplugin "istio.io/istio/pilot/pkg/networking/plugin/authn"
	authzplugin "istio.io/istio/pilot/pkg/networking/plugin/authz"
	"istio.io/istio/pilot/pkg/security/authn"
	discovery "istio.io/istio/pilot/pkg/serviceregistry/memory"
	"istio.io/istio/pilot/pkg/serviceregistry/provider"
	"istio.io/istio/pkg/config"
	validator "istio.io/istio/pkg/config/crd"
	"istio.io/istio/pkg/config/host"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/gvk"
	"istio.io/istio/pkg/config/schema/kind"
	"istio.io/istio/pkg/util/protomarshal"
	"istio.io/istio/pkg/util/sets"
)

// discovered stands at the end of the address of a rule's keys that names neither keys nor an address of them: Istio
// asks the issuer there.
const discovered = "/.well-known/openid-configuration"

// updated is what differs from a mesh with nothing in it, so that istiod looks at it.
var updated = sets.New(
	model.ConfigKey{Kind: kind.ServiceEntry},
	model.ConfigKey{Kind: kind.PeerAuthentication},
	model.ConfigKey{Kind: kind.RequestAuthentication},
	model.ConfigKey{Kind: kind.AuthorizationPolicy},
)

type question struct {
	Mesh      json.RawMessage `json:"mesh"`      // MeshConfig, over Istio's defaults
	Services  []service       `json:"services"`  // of the mesh
	Documents []string        `json:"documents"` // policies, each a YAML document
	Workloads []workload      `json:"workloads"` // that the policies are for
}

type service struct {
	Hostname  string `json:"hostname"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	External  bool   `json:"external"` // a ServiceEntry
}

type workload struct {
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
	Type      string            `json:"type"`    // sidecar, router or waypoint; a sidecar without it
	Service   *service          `json:"service"` // that a waypoint is asked for
	Ports     []uint32          `json:"ports"`   // whose mTLS mode is asked for
}

type answer struct {
	Documents []verdict `json:"documents"`
	Workloads []made    `json:"workloads"`
}

// made is what Istio makes of the policies for one workload: filters in the order of its filter chains.
type made struct {
	HTTP  []json.RawMessage `json:"http"`
	TCP   []json.RawMessage `json:"tcp"`
	Mode  string            `json:"mode"`
	Ports map[uint32]port   `json:"ports"`
}

type port struct {
	Mode  string            `json:"mode"`
	Names []json.RawMessage `json:"names"` // what Envoy wants of a name in the peer's certificate: any of these
}

func answerTo(asked question, schemas *validator.Validator) (answer, error) {
	found := answer{Documents: []verdict{}, Workloads: []made{}}
	var policies []config.Config
	for _, document := range asked.Documents {
		policy, verdict := read(document, schemas)
		found.Documents = append(found.Documents, verdict)
		if policy != nil {
			policies = append(policies, *policy)
		}
	}
	if len(asked.Workloads) == 0 {
		return found, nil
	}
	push, err := pushContext(asked, policies)
	if err != nil {
		return found, err
	}
	for _, each := range asked.Workloads {
		filters, err := filtersFor(each, push)
		if err != nil {
			return found, err
		}
		found.Workloads = append(found.Workloads, filters)
	}
	return found, nil
}

// pushContext is istiod's view of a mesh with these policies.
func pushContext(asked question, policies []config.Config) (*model.PushContext, error) {
	settings := mesh.DefaultMeshConfig()
	if err := protomarshal.ApplyJSONStrict(string(asked.Mesh), settings); err != nil {
		return nil, err
	}
	environment := model.NewEnvironment()
	environment.Watcher = meshwatcher.NewTestWatcher(settings)
	environment.NetworksWatcher = meshwatcher.NewFixedNetworksWatcher(&meshconfig.MeshNetworks{})
	var services []*model.Service
	for _, each := range asked.Services {
		services = append(services, each.model())
	}
	environment.ServiceDiscovery = discovery.NewServiceDiscovery(services...)
	store := memory.MakeSkipValidation(collections.Pilot)
	for _, policy := range policies {
		if policy.CreationTimestamp.IsZero() {
			policy.CreationTimestamp = time.Unix(0, 0) // or the store says now, and the oldest becomes the youngest
		}
		if _, err := store.Create(withKeys(policy)); err != nil {
			return nil, fmt.Errorf("%s %s/%s: %v", policy.GroupVersionKind.Kind, policy.Namespace, policy.Name, err)
		}
	}
	environment.ConfigStore = store
	environment.Init()
	nothing, push := model.NewPushContext(), model.NewPushContext()
	nothing.InitDone.Store(true)
	push.InitContext(environment, nothing, &model.PushRequest{ConfigsUpdated: updated})
	return push, nil
}

// withKeys names the place at the issuer where Istio looks for keys, if a rule names no other: nothing is fetched here.
func withKeys(policy config.Config) config.Config {
	if policy.GroupVersionKind != gvk.RequestAuthentication {
		return policy
	}
	policy = policy.DeepCopy()
	for _, rule := range policy.Spec.(*v1beta1.RequestAuthentication).JwtRules {
		if rule.Jwks == "" && rule.JwksUri == "" {
			rule.JwksUri = rule.Issuer + discovered
		}
	}
	return policy
}

func (s service) model() *model.Service {
	registry := provider.Kubernetes
	if s.External {
		registry = provider.External
	}
	return &model.Service{
		Hostname:   host.Name(s.Hostname),
		Attributes: model.ServiceAttributes{Name: s.Name, Namespace: s.Namespace, ServiceRegistry: registry},
	}
}

func filtersFor(asked workload, push *model.PushContext) (made, error) {
	found := made{HTTP: []json.RawMessage{}, TCP: []json.RawMessage{}, Ports: map[uint32]port{}}
	proxy := &model.Proxy{
		ID: "oracle", Type: model.SidecarProxy, ConfigNamespace: asked.Namespace, Labels: asked.Labels,
		Metadata:     &model.NodeMetadata{Namespace: asked.Namespace, Labels: asked.Labels},
		IstioVersion: model.MaxIstioVersion,
	}
	if asked.Type != "" {
		proxy.Type = model.NodeType(asked.Type)
	}
	var target *model.Service
	if asked.Service != nil {
		target = asked.Service.model()
	}
	class := networking.ListenerClassSidecarInbound
	if proxy.Type != model.SidecarProxy {
		class = networking.ListenerClassGateway
	}
	// The identity of a waypoint's peer is in filter state (pilot/pkg/networking/core/waypoint.go).
	waypoint := proxy.Type == model.Waypoint
	custom := authzplugin.NewBuilderForService(authzplugin.Custom, push, proxy, waypoint, target)
	tokens := authnplugin.NewBuilderForService(push, proxy, target)
	local := authzplugin.NewBuilderForService(authzplugin.Local, push, proxy, waypoint, target)
	http := append(custom.BuildHTTP(class), append(tokens.BuildHTTP(class), local.BuildHTTP(class)...)...)
	tcp := append(custom.BuildTCP(), local.BuildTCP()...)
	if err := marshal(http, &found.HTTP); err != nil {
		return found, err
	}
	if err := marshal(tcp, &found.TCP); err != nil {
		return found, err
	}
	own := model.PolicyMatcherForProxy(proxy) // a service says nothing of the proxy's own connections
	merged := authn.ComposePeerAuthentication(
		push.AuthnPolicies.GetRootNamespace(), push.AuthnPolicies.GetPeerAuthenticationsForWorkload(own))
	found.Mode = merged.Mode.String()
	for _, number := range asked.Ports {
		settings := authnplugin.NewBuilder(push, proxy).ForPort(number)
		each := port{Mode: settings.Mode.String(), Names: []json.RawMessage{}}
		wanted := settings.HTTP.GetCommonTlsContext().GetCombinedValidationContext().GetDefaultValidationContext()
		if err := marshal(wanted.GetMatchSubjectAltNames(), &each.Names); err != nil {
			return found, err
		}
		found.Ports[number] = each
	}
	return found, nil
}

func marshal[T proto.Message](filters []T, into *[]json.RawMessage) error {
	for _, filter := range filters {
		text, err := protomarshal.Marshal(filter)
		if err != nil {
			return err
		}
		*into = append(*into, text)
	}
	return nil
}
