# The benchmark's rules for OPA: the same caller, token, method, path and group as in Istio's YAML.
package bench

default allow := false

allow if {
	some rule in data.rules
	input.principal == rule.principal
	input.method == "GET"
	startswith(split(input.path, "?")[0], rule.prefix)
	rule.group in claims.groups
}

claims := payload if {
	[_, token] := split(input.headers.authorization, " ")
	[valid, _, payload] := io.jwt.decode_verify(token, {"cert": data.jwks, "iss": data.issuer, "aud": data.audience})
	valid
}
