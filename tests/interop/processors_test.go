package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"hearth.test/interop/harness"
)

// processor is one build of hearth, and the words that run it.
type processor struct{ name, runner, binary string }

// processors reads HEARTH_PROCESSORS: a line of "name|runner|binary" for each.
func processors(t *testing.T) []processor {
	var all []processor
	for _, line := range strings.Split(strings.TrimSpace(os.Getenv("HEARTH_PROCESSORS")), "\n") {
		fields := strings.Split(line, "|")
		if len(fields) != 3 {
			t.Skip("HEARTH_PROCESSORS names no builds")
		}
		all = append(all, processor{fields[0], fields[1], fields[2]})
	}
	if len(all) < 2 {
		t.Fatal("HEARTH_PROCESSORS names one build; a database moves between two")
	}
	return all
}

// use makes the harness run this build from now on.
func (p processor) use(t *testing.T) {
	t.Setenv("HEARTH_BIN", p.binary)
	t.Setenv("HEARTH_RUNNER", p.runner)
}

// TestDatabaseMovesBetweenProcessors has the first build write a database with a
// bit of everything in it. Each of the others opens a copy, has to tell the same,
// has to be taken for the same server by a device that joined the first, and adds
// to it; which the first then reads. Each restores encrypted backups of the other.
func TestDatabaseMovesBetweenProcessors(t *testing.T) {
	all := processors(t)
	first, others := all[0], all[1:]
	first.use(t)
	s := startHTTP(t)
	fill(t, s)
	told := everything(t, s)
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(backupIdentity), 0o600); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup.tar.zst.age")
	s.CLI("backup", "--recipient", backupRecipient, backup)
	s.Terminate()
	kept := filepath.Join(t.TempDir(), "kept")
	move(t, s.DataDir, kept)
	for _, other := range others {
		move(t, kept, s.DataDir)
		other.use(t)
		s.Run()
		same(t, told, everything(t, s), other.name+" reads what "+first.name+" wrote")
		harness.Eventually(t, harness.Patience, "the device is back", func() error {
			alpha, relay := s.MustNode("alpha"), s.Status().Relay
			return harness.Check(alpha.Online && relay.Connections == 1, "%+v, %+v", alpha, relay)
		})
		s.User("from-" + other.name)
		s.Key("from-" + other.name)
		more := everything(t, s)
		theirs := filepath.Join(t.TempDir(), "theirs.tar.zst.age")
		s.CLI("backup", "--recipient", backupRecipient, theirs)
		s.Terminate()
		first.use(t)
		s.Run()
		same(t, more, everything(t, s), first.name+" reads what "+other.name+" added")
		s.Terminate()
		restore(t, s, identity, theirs)
		s.Run()
		same(t, more, everything(t, s), first.name+" restores a backup of "+other.name)
		s.Terminate()
		other.use(t)
		restore(t, s, identity, backup)
		s.Run()
		same(t, told, everything(t, s), other.name+" restores a backup of "+first.name)
		s.Terminate()
		t.Logf("%s and %s read what the other wrote", first.name, other.name)
	}
}

// A key of age for these tests only: the identity of 32 bytes 0x42, and its
// recipient.
const (
	backupIdentity  = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n"
	backupRecipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
)

// restore puts a backup in the place of the data directory.
func restore(t *testing.T, s *harness.Server, identity, backup string) {
	t.Helper()
	if err := os.RemoveAll(s.DataDir); err != nil {
		t.Fatal(err)
	}
	s.CLI("restore", "--data-dir", s.DataDir, "--identity", identity, backup)
}

// fill puts something into every table.
func fill(t *testing.T, s *harness.Server) {
	s.User("alice")
	s.User("bob")
	key := s.Key("alice", "--reusable", "--expiration", "24h")
	join(t, s, "alpha", key)
	for _, hostname := range []string{"beta", "gamma", "delta"} {
		harness.NewClient(t, s.URL, hostname, 0).Join(t, key)
	}
	s.CLI("apikeys", "create")
	s.CLI("nodes", "rename", "-i", s.MustNode("gamma").ID, "renamed")
	s.CLI("nodes", "add-wireguard", "plain", "--user", "bob", "--routes", "192.168.7.0/24",
		"--endpoint", "192.0.2.7:51820", "--key", "3Gx8ymBcUFTQsePsB8F5EtFpSP7VWJ4HyyIg3YtUFXk=")
	s.CLI("dns", "add", "web", "192.168.1.40")
	policy := filepath.Join(t.TempDir(), "policy.hujson")
	text := `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "tagOwners": {"tag:a": ["alice@"]}}`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.CLI("policy", "set", policy)
}

// everything is what the server tells of its state, without what it knows only
// while it runs.
func everything(t *testing.T, s *harness.Server) map[string]any {
	t.Helper()
	told := map[string]any{"policy": s.CLI("policy", "get")}
	for _, what := range []string{"users", "nodes", "preauthkeys", "apikeys", "dns"} {
		var list any
		s.JSON(&list, what, "list")
		told[what] = durable(list)
	}
	return told
}

// durable removes the fields that a running server alone knows.
func durable(value any) any {
	switch value := value.(type) {
	case []any:
		for i := range value {
			value[i] = durable(value[i])
		}
	case map[string]any:
		for _, passing := range []string{"online", "lastSeen", "endpoints"} {
			delete(value, passing)
		}
		for name := range value {
			value[name] = durable(value[name])
		}
	}
	return value
}

func same(t *testing.T, want, have map[string]any, what string) {
	t.Helper()
	for name := range want {
		if !reflect.DeepEqual(want[name], have[name]) {
			before, _ := json.Marshal(want[name])
			after, _ := json.Marshal(have[name])
			t.Fatalf("%s, but %s were\n%s\nand are\n%s", what, name, before, after)
		}
	}
}

// move puts a copy of a directory in the place of another.
func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
