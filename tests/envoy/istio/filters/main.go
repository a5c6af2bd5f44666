// Says which Envoy filters Istio's own code makes of Istio's security policies, and which policies Istio refuses.
//
// One JSON question a line on standard input, one JSON answer a line on standard output. Nothing is decided here: the
// validation is that of Istio's CRDs and webhook, the selection and the translation are istiod's.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pkg/config/crd"
	"istio.io/istio/pkg/jwt"
	"istio.io/istio/pkg/log"
)

const longestQuestion = 256 << 20

func main() {
	crds := flag.String("crds", "", "file of Istio's CustomResourceDefinitions")
	flag.Parse()
	if err := run(*crds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(crds string) error {
	options := log.DefaultOptions()
	options.SetDefaultOutputLevel(log.OverrideScopeName, log.NoneLevel)
	if err := log.Configure(options); err != nil {
		return err
	}
	// Keys are fetched by Envoy, or here nothing could be said about a policy without its issuer.
	features.JwksFetchMode = jwt.Envoy
	schemas, err := crd.NewValidatorFromFilesWithOptions([]string{crds}, crd.WithoutCRDValidation())
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestQuestion)
	answers := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		found, err := answerTo(asked, schemas)
		if err != nil {
			return err
		}
		line, err := json.Marshal(found)
		if err != nil {
			return err
		}
		if _, err := answers.Write(append(line, '\n')); err != nil {
			return err
		}
		if err := answers.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}
