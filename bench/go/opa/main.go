// OPA's engine behind a Go ext_authz server: a prepared Rego query for each check, the token verified in Rego.
//
// It is not the opa-envoy-plugin, and does less than it: no plugin manager, no decision log, no metrics.
//
// usage: opa SOCKET POLICY.rego DATA.json
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

type server struct {
	query rego.PreparedEvalQuery
}

func (s server) Check(ctx context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	attributes := request.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	headers := make(map[string]any, len(http.GetHeaders()))
	for name, value := range http.GetHeaders() {
		headers[name] = value
	}
	for _, header := range http.GetHeaderMap().GetHeaders() {
		headers[header.GetKey()] = string(header.GetRawValue())
	}
	input := map[string]any{
		"principal": attributes.GetSource().GetPrincipal(),
		"method":    http.GetMethod(),
		"path":      http.GetPath(),
		"headers":   headers,
	}
	results, err := s.query.Eval(ctx, rego.EvalInput(input))
	if err != nil || !results.Allowed() {
		return &authv3.CheckResponse{
			Status:       &status.Status{Code: int32(code.Code_PERMISSION_DENIED)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{}},
		}, nil
	}
	return &authv3.CheckResponse{Status: &status.Status{}}, nil
}

func main() {
	policy, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	var data map[string]any
	if err := json.Unmarshal(text, &data); err != nil {
		log.Fatal(err)
	}
	query, err := rego.New(
		rego.Query("data.bench.allow"),
		rego.Module("bench.rego", string(policy)),
		rego.Store(inmem.NewFromObject(data)),
	).PrepareForEval(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	authv3.RegisterAuthorizationServer(grpcServer, server{query: query})
	log.Fatal(grpcServer.Serve(listener))
}
