// Package interop proves hearth with the official client: every test starts a
// hearth of its own and talks to it with code from tailscale.com.
package interop

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"hearth.test/interop/harness"
)

var (
	// address is where servers listen in this run.
	address string
	// authority signs the certificates of the servers that have one.
	authority *harness.Authority
)

func TestMain(m *testing.M) {
	if os.Getenv(wanClientEnv) != "" {
		os.Exit(runWANClient())
	}
	flag.Parse()
	address = harness.EnterNamespace()
	// The client must neither upload logs nor ask the router for port mappings.
	os.Setenv("TS_NO_LOGS_NO_SUPPORT", "true")
	os.Setenv("TS_DISABLE_PORTMAPPER", "true")
	// Where this is set, the client's packages print a stack for each optional part
	// that a bare client goes without.
	os.Unsetenv("CI")
	os.Unsetenv("GITHUB_ACTIONS")
	dir, err := os.MkdirTemp("", "hearth-interop")
	if err == nil {
		authority, err = harness.NewAuthority(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// startHTTP starts a server in the plain-HTTP mode of a home network.
func startHTTP(t *testing.T) *harness.Server {
	t.Helper()
	return start(t, harness.Options{Address: address})
}

// startHTTPS starts a server with an https:// URL and a certificate that the
// clients trust.
func startHTTPS(t *testing.T) *harness.Server {
	t.Helper()
	return start(t, harness.Options{Address: address, Authority: authority})
}

func start(t *testing.T, options harness.Options) *harness.Server {
	t.Helper()
	s := harness.Start(t, options)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of hearth:\n%s", s.Log())
		}
	})
	return s
}
