// Command rules runs tables of cases through Go's libraries, so that the tests compare trivy-ferry
// with them and not only with the tables:
//
//	rules proxies       golang.org/x/net/http/httpproxy: which proxy a URL gets
//	rules logins        go.podman.io/image/v5/pkg/docker/config: which login a repository gets
//	rules certificates  crypto/x509: whether a server's certificates are trusted
//
// It reads the cases as JSON from standard input, and writes a decision for each to standard output.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
	"golang.org/x/net/http/httpproxy"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rules:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: rules proxies|logins|certificates")
	}
	switch args[0] {
	case "proxies":
		return each(in, out, proxy)
	case "logins":
		logrus.SetOutput(io.Discard)
		return each(in, out, login)
	case "certificates":
		return each(in, out, verdict)
	}
	return fmt.Errorf("there is no table %q", args[0])
}

// each decides a list of cases.
func each[Case, Decision any](in io.Reader, out io.Writer, decide func(Case) (Decision, error)) error {
	var cases []Case
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&cases); err != nil {
		return err
	}
	decisions := make([]Decision, 0, len(cases))
	for number, given := range cases {
		decision, err := decide(given)
		if err != nil {
			return fmt.Errorf("case %d: %w", number, err)
		}
		decisions = append(decisions, decision)
	}
	return json.NewEncoder(out).Encode(decisions)
}

// setenv replaces the environment with these variables.
func setenv(variables map[string]string) error {
	os.Clearenv()
	for name, value := range variables {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

type proxyCase struct {
	Env map[string]string `json:"env"`
	URL string            `json:"url"`
}

// proxy returns `direct`, `refused` or the URL of the proxy.
func proxy(given proxyCase) (string, error) {
	if err := setenv(given.Env); err != nil {
		return "", err
	}
	asked, err := url.Parse(given.URL)
	if err != nil {
		return "", err
	}
	chosen, err := httpproxy.FromEnvironment().ProxyFunc()(asked)
	switch {
	case err != nil:
		return "refused", nil
	case chosen == nil:
		return "direct", nil
	}
	return chosen.String(), nil
}

type loginCase struct {
	Env        map[string]string `json:"env"`
	Repository string            `json:"repository"`
}

// login returns `none`, `error`, `NAME:PASSWORD` or `token:TOKEN`.
func login(given loginCase) (string, error) {
	if err := setenv(given.Env); err != nil {
		return "", err
	}
	found, err := config.GetCredentials(&types.SystemContext{AuthFilePath: named()}, given.Repository)
	switch {
	case err != nil:
		return "error", nil
	case found == types.DockerAuthConfig{}:
		return "none", nil
	case found.IdentityToken != "":
		return "token:" + found.IdentityToken, nil
	}
	return found.Username + ":" + found.Password, nil
}

// named returns the file that the user named: the default of `--authfile` in Podman, Skopeo and Buildah
// (`go.podman.io/common/pkg/auth.GetDefaultAuthFile`, which has too many dependencies for this program).
func named() string {
	if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		return file
	}
	if directory := os.Getenv("DOCKER_CONFIG"); directory != "" {
		return filepath.Join(directory, "config.json")
	}
	return ""
}
