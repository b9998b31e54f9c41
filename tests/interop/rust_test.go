package interop

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hearth.test/interop/harness"
)

// TestRustClient lets the independent client of tests/rust-client join. It runs
// when HEARTH_RUST_CLIENT names the program; tests/rust-client/run builds it.
func TestRustClient(t *testing.T) {
	program := os.Getenv("HEARTH_RUST_CLIENT")
	if program == "" {
		t.Skip("HEARTH_RUST_CLIENT names no program")
	}
	t.Run("http", func(t *testing.T) {
		// This client has no support for pinned certificates and so no relay here.
		rustClient(t, program, startHTTP(t))
	})
	t.Run("https", func(t *testing.T) { rustClient(t, program, startHTTPS(t), echoPort) })
}

func rustClient(t *testing.T, program string, s *harness.Server, port ...string) {
	s.User("alice")
	alpha := join(t, s, "alpha", s.Key("alice"))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := append([]string{s.URL, s.Key("alice"), "crab", "beta"}, port...)
	var out strings.Builder
	client := exec.CommandContext(ctx, program, args...)
	client.Stdout, client.Stderr = &out, &out
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- client.Wait() }()
	alpha.sees("crab")
	// It waits for its peer, so there is time for a question over its control connection.
	if got := s.CLI("nodes", "c2n", "crab", "echo", "-X", "POST", "-d", "hello"); got != "hello\n" {
		t.Errorf("echo came back as %q", got)
	}
	if _, err := s.TryCLI("nodes", "c2n", "crab", "health"); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("a question that this client does not know: %v", err)
	}
	// It listens before others know it: the Rust client connects at once, and only once.
	newDevice(t, s, "", "beta", s.Key("alice")).echo().up()
	if err := <-ended; err != nil {
		t.Fatalf("the Rust client: %v\n%s", err, &out)
	}
	t.Logf("the Rust client says:\n%s", &out)
}
