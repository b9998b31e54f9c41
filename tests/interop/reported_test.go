package interop

import (
	"testing"
	"time"

	"hearth.test/interop/harness"
)

// The faults that were found in the first version, as users met them: each test says what
// is right, in words that the first version understands, too (tests/crash --reproduce).

// TestPolicyThatWasNeverValid: with a policy file that is missing at the first start,
// nobody reaches anybody.
func TestPolicyThatWasNeverValid(t *testing.T) {
	t.Parallel()
	s := start(t, harness.Options{Address: address, Config: "[policy]\nfile = \"/nowhere/policy.hujson\"\n"})
	s.User("alice")
	client := harness.NewClient(t, s.URL, "alpha", 0)
	client.Join(t, s.Key("alice"))
	m := client.MustMap(t, client.MapRequest()).Until(t, "a map", hasSelf)
	rules := len(m.PacketFilter)
	for _, part := range m.PacketFilters {
		rules += len(part)
	}
	if rules > 0 {
		t.Errorf("with a policy file that is missing at the first start everyone reaches everyone: %+v", m.PacketFilters)
	}
}

// TestTyposOfApproval: what looks like a restriction is one. Whom a person lets in by
// approving the registration needs no second approval, so this device brings a key that
// does not approve.
func TestTyposOfApproval(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"approval = \"yes\"", "approval = 1"} {
		s := start(t, harness.Options{Address: address, Config: "[node]\n" + line + "\n"})
		s.User("alice")
		var key struct{ PreAuthKey struct{ Key string } }
		body := map[string]any{"user": "1", "preauthorized": false, "expiration": time.Now().Add(time.Hour).Format(time.RFC3339)}
		if err := newAdmin(s).ask("POST", "/preauthkey", body, &key); err != nil {
			t.Fatal(err)
		}
		client := harness.NewClient(t, s.URL, "alpha", 0)
		answer, err := client.Register(harness.Within(t, harness.Patience), client.RegisterRequest(key.PreAuthKey.Key))
		if err != nil {
			t.Fatal(err)
		}
		if answer.MachineAuthorized {
			t.Errorf("with `%s` a device is in without approval", line)
		}
	}
}

// TestSpellingsOfNoExpiry: no spelling of "no expiry" ends a node's key now.
func TestSpellingsOfNoExpiry(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	client := harness.NewClient(t, s.URL, "alpha", 0)
	client.Join(t, s.Key("alice"))
	a := newAdmin(s)
	path := "/node/" + s.MustNode("alpha").ID + "/expire"
	for _, query := range []string{"?disableExpiry=true", "?disable_expiry=true", "?disableExpiry=1", "?disableExpiry=True"} {
		a.ask("POST", path+query, nil, nil)
		nodes, err := a.nodes()
		if err != nil || len(nodes) != 1 {
			t.Fatal(nodes, err)
		}
		if end := nodes[0].Expiry; !end.IsZero() && end.Before(time.Now().Add(time.Minute)) {
			t.Fatalf("POST /node/ID/expire%s expires the node now", query)
		}
	}
}

// TestEndsFarAhead: an end too far ahead to be stored is not one within the hour.
func TestEndsFarAhead(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	// It may be refused.
	if _, err := s.TryCLI("preauthkeys", "create", "--user", "alice", "--expiration", "9999y"); err != nil {
		return
	}
	var keys struct {
		PreAuthKeys []struct{ Expiration time.Time }
	}
	if err := newAdmin(s).ask("GET", "/preauthkey", nil, &keys); err != nil || len(keys.PreAuthKeys) != 1 {
		t.Fatal(keys, err)
	}
	if end := keys.PreAuthKeys[0].Expiration; !end.IsZero() && end.Before(time.Now().Add(24*time.Hour)) {
		t.Errorf("--expiration 9999y ends the key at %v", end)
	}
}

// TestMistypedAddressOfARecord: an address with a typo is no name of a node.
func TestMistypedAddressOfARecord(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	if out, err := s.TryCLI("dns", "add", "printer", "192.168.1.300"); err == nil {
		t.Errorf("192.168.1.300 is taken: %s", out)
	}
}

// TestNamesOfDigits: a device that calls itself 13 is not listed as what looks like an id.
func TestNamesOfDigits(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	client := harness.NewClient(t, s.URL, "13", 0)
	client.Join(t, s.Key("alice"))
	if name := s.Nodes()[0].GivenName; name == "13" {
		t.Errorf("a device is called %q, as if that were its id", name)
	}
}
