// Package backup compares hearth's encrypted backups with age itself, in both directions.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// binary is the program under test: HEARTH_BIN, or the release build.
func binary() string {
	if bin := os.Getenv("HEARTH_BIN"); bin != "" {
		return bin
	}
	return filepath.Join("..", "..", "..", "target", "release", "hearth")
}

// Started once by each test that needs it: a data directory with keys, certificate and settings.
func dataDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	write(t, filepath.Join(dir, "hearth.toml"), "listen.http = \"127.0.0.1:0\"\nlisten.https = \"127.0.0.1:0\"\nlisten.stun = \"off\"\n")
	server := exec.Command(binary(), "serve", "--config", filepath.Join(dir, "hearth.toml"), "--data-dir", data)
	server.Stdout, server.Stderr = os.Stderr, os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(data, "hearth.sock")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("hearth does not start")
		}
	}
	server.Process.Signal(os.Interrupt)
	if err := server.Wait(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hearth(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(binary(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("hearth %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func opened(t *testing.T, path string, identity age.Identity) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := age.Decrypt(file, identity)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func sealed(t *testing.T, plain []byte, recipient age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	writer, err := age.Encrypt(&out, recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestBackupsAreFilesOfAge opens what hearth encrypted with age, and restores what age encrypted with hearth.
func TestBackupsAreFilesOfAge(t *testing.T) {
	dir := dataDirectory(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	offline := []string{"backup", "--offline", "--config", in("hearth.toml"), "--data-dir", in("data")}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write(t, in("identity"), "# a comment\n"+identity.String()+"\n")
	write(t, in("passphrase"), "correct horse\n")
	hearth(t, append(offline, in("plain"))...)
	hearth(t, append(offline, "-r", identity.Recipient().String(), in("by-recipient"))...)
	hearth(t, append(offline, "--passphrase-file", in("passphrase"), in("by-passphrase"))...)

	scrypt, err := age.NewScryptIdentity("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	plain := opened(t, in("by-recipient"), identity)
	checkArchive(t, plain)
	checkArchive(t, opened(t, in("by-passphrase"), scrypt))

	recipient, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	recipient.SetWorkFactor(12)
	write(t, in("age-recipient"), string(sealed(t, plain, identity.Recipient())))
	write(t, in("age-passphrase"), string(sealed(t, plain, recipient)))
	hearth(t, "restore", "--data-dir", in("new1"), "--identity", in("identity"), in("age-recipient"))
	hearth(t, "restore", "--data-dir", in("new2"), "--passphrase-file", in("passphrase"), in("age-passphrase"))
	for _, restored := range []string{"new1", "new2"} {
		for _, name := range []string{"hearth.redb", "tls/cert.pem", "tls/key.pem"} {
			old, err := os.ReadFile(filepath.Join(in("data"), name))
			if err != nil {
				t.Fatal(err)
			}
			if now, err := os.ReadFile(filepath.Join(in(restored), name)); err != nil || !bytes.Equal(old, now) {
				t.Errorf("%s/%s is another: %v", restored, name, err)
			}
		}
	}
}

// checkArchive reads an archive with another tar and another zstd, and compares its checksums.
func checkArchive(t *testing.T, plain []byte) {
	t.Helper()
	decoder, err := zstd.NewReader(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	archive := tar.NewReader(decoder)
	var sums, want string
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(header.Name, "hearth-backup/")
		if !ok || header.Typeflag != tar.TypeReg {
			t.Fatalf("unexpected %q", header.Name)
		}
		if name == "SHA256SUMS" {
			want = string(content)
			continue
		}
		sum := sha256.Sum256(content)
		sums += fmt.Sprintf("%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	for _, name := range []string{"manifest.json", "data/hearth.redb", "data/tls/key.pem", "settings/hearth.toml"} {
		if !strings.Contains(sums, "  "+name+"\n") {
			t.Errorf("%s is missing in\n%s", name, sums)
		}
	}
	if sums != want {
		t.Errorf("checksums differ:\n%s\n%s", sums, want)
	}
}
