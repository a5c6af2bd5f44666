# The benchmark's rules for opa-envoy-plugin: the same caller, token, method, path and group as in Istio's YAML.
package bench

default allow := false

allow if {
	http.method == "GET"
	some rule in data.rules
	input.source_principal == rule.principal
	startswith(split(http.path, "?")[0], rule.prefix)
	rule.group in claims.groups
}

http := input.attributes.request.http

claims := payload if {
	[_, token] := split(http.headers.authorization, " ")
	[valid, _, payload] := io.jwt.decode_verify(token, {"cert": data.jwks, "iss": data.issuer, "aud": data.audience})
	valid
}
