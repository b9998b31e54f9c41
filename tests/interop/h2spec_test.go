package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	spechttp2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	"tailscale.com/control/controlhttp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"hearth.test/interop/harness"
)

// earlyPayloadMagic begins what the server sends before HTTP/2. Source:
// EarlyPayloadMagic in tailscale control/controlhttp/controlhttpcommon.
const earlyPayloadMagic = "\xff\xff\xffTS"

// TestHTTP2Conformance runs h2spec against the HTTP/2 server inside Noise, where
// hearth speaks HTTP/2 alone: over TLS it offers HTTP/1.1 only.
func TestHTTP2Conformance(t *testing.T) {
	s := startHTTP(t)
	serverKey, err := harness.FetchServerKey(s.URL, tailcfg.CurrentCapabilityVersion)
	if err != nil {
		t.Fatal(err)
	}
	host, port := noiseBridge(t, s.URL, serverKey)
	options := &config.Config{
		Host: host, Port: port, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true,
	}
	passed, skipped := 0, 0
	for _, group := range []*spec.TestGroup{generic.Spec(), spechttp2.Spec(), hpack.Spec()} {
		group.Test(options)
		passed += group.PassedCount
		skipped += group.SkippedCount
		eachCase(group, func(test *spec.TestCase) {
			name := test.Parent.ID() + ": " + test.Desc
			// Where the machine is busy, an answer can be there before the frame that
			// the case is about.
			for tries := 0; tries < 3 && test.Result != nil && test.Result.Failed; tries++ {
				if err := test.Test(options, test.Result.Sequence); err != nil {
					t.Fatal(err)
				}
			}
			switch {
			case test.Result == nil:
			case test.Result.Skipped:
				t.Logf("h2spec skips %s", name)
			case test.Result.Failed:
				t.Errorf("%s (%s): %v", name, test.Requirement, test.Result.Error)
			}
		})
	}
	if passed < 100 {
		t.Errorf("only %d cases passed", passed)
	}
	t.Logf("h2spec: %d cases passed, %d skipped", passed, skipped)
}

func eachCase(group *spec.TestGroup, visit func(*spec.TestCase)) {
	for _, test := range append(group.Tests, group.StrictTests...) {
		visit(test)
	}
	for _, below := range group.Groups {
		eachCase(below, visit)
	}
}

// noiseBridge accepts plain connections and passes their bytes through a Noise
// session of a fresh machine each.
func noiseBridge(t *testing.T, serverURL string, serverKey key.MachinePublic) (string, int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var sessions sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		sessions.Wait()
	})
	go func() {
		for {
			plain, err := listener.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer plain.Close()
				if err := passThrough(plain, serverURL, serverKey); err != nil {
					t.Logf("bridge: %v", err)
				}
			})
		}
	}()
	address := listener.Addr().(*net.TCPAddr)
	return address.IP.String(), address.Port
}

func passThrough(plain net.Conn, serverURL string, serverKey key.MachinePublic) error {
	at, err := url.Parse(serverURL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	dialer := &controlhttp.Dialer{
		Hostname: at.Hostname(), HTTPPort: at.Port(), HTTPSPort: controlhttp.NoPort,
		MachineKey: key.NewMachine(), ControlKey: serverKey, ProtocolVersion: uint16(tailcfg.CurrentCapabilityVersion),
		Dialer: (&net.Dialer{}).DialContext, Logf: logger.Discard,
	}
	noise, err := dialer.Dial(ctx)
	if err != nil {
		return err
	}
	defer noise.Close()
	if err := skipEarlyPayload(noise); err != nil {
		return err
	}
	go func() {
		io.Copy(noise, plain)
		// A client that has closed may still want what comes.
		noise.SetReadDeadline(time.Now().Add(5 * time.Second))
	}()
	// A reset is one of the answers that cases wait for.
	io.Copy(plain, noise)
	return nil
}

func skipEarlyPayload(noise io.Reader) error {
	header := make([]byte, len(earlyPayloadMagic)+4)
	if _, err := io.ReadFull(noise, header); err != nil {
		return err
	}
	length, found := bytes.CutPrefix(header, []byte(earlyPayloadMagic))
	if !found {
		return errors.New("no early payload")
	}
	_, err := io.CopyN(io.Discard, noise, int64(binary.BigEndian.Uint32(length)))
	return err
}

// TestRequestSmuggling sends requests that two parsers may read in two ways, each
// with a second request hidden in it. Whatever hearth makes of the first one, it
// must not answer the hidden one, and must close the connection.
func TestRequestSmuggling(t *testing.T) {
	s := startHTTP(t)
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	hidden := "GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Hidden: "
	chunked := func(te string) string {
		return "POST /machine/register HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n" + te + "\r\n\r\n0\r\n\r\n" + hidden
	}
	cases := map[string]string{
		"two lengths that differ":            "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\n" + hidden,
		"a list of lengths that differ":      "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 60\r\n\r\n" + hidden,
		"a signed length":                    "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n" + hidden,
		"a negative length":                  "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + hidden,
		"a hexadecimal length":               "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: 0x0\r\n\r\n" + hidden,
		"a length that overflows":            "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n" + hidden,
		"a length and chunks":                chunked("Transfer-Encoding: chunked"),
		"a space before the colon":           chunked("Transfer-Encoding : chunked"),
		"a tab before the colon":             chunked("Transfer-Encoding\t: chunked"),
		"an unknown coding":                  chunked("Transfer-Encoding: xchunked"),
		"chunked is not the last coding":     chunked("Transfer-Encoding: chunked, identity"),
		"two codings in two lines":           chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
		"a coding with a control character":  chunked("Transfer-Encoding: \x0bchunked"),
		"a folded line":                      chunked("X: y\r\n Transfer-Encoding: chunked"),
		"a folded coding":                    chunked("Transfer-Encoding:\r\n chunked"),
		"a bare carriage return in a header": chunked("X: y\rTransfer-Encoding: chunked"),
		"a zero byte in a name":              chunked("Transfer\x00-Encoding: chunked"),
		"a quoted coding":                    chunked("Transfer-Encoding: \"chunked\""),
		"chunks in HTTP/1.0":                 "POST /api/v1/user HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"a chunk size with a sign":           "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + hidden,
		"a chunk size with a prefix":         "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + hidden,
		"a chunk size that overflows":        "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" + hidden,
		"a chunk without its line end":       "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nZ0\r\n\r\n" + hidden,
		"a chunk extension with a line feed": "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0;a=\nb\r\n\r\n" + hidden,
		"a name without a colon":             "GET /key HTTP/1.1\r\nHost: x\r\nContent-Length\r\n\r\n" + hidden,
		"white space before the first name":  "GET /key HTTP/1.1\r\n Host: x\r\n\r\n" + hidden,
		"a name with a space":                "GET /key HTTP/1.1\r\nHost: x\r\nContent Length: 5\r\n\r\n" + hidden,
		"a version that does not exist":      "GET /key HTTP/1.2\r\nHost: x\r\n\r\n" + hidden,
		"a request line with two spaces":     "GET /key  HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
	}
	for name, request := range cases {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			// What is not a whole request would be waited for.
			answer := answerTo(t, at.Host, request+"y\r\n\r\n", (*net.TCPConn).CloseWrite)
			statuses := strings.Count(answer, "HTTP/1.1 ")
			if strings.Contains(answer, " 204 ") || statuses > 1 {
				t.Errorf("the hidden request was answered:\n%s", answer)
			}
		})
	}
	t.Run("requests_one_after_the_other_are_all_answered", func(t *testing.T) {
		plain := "GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n"
		last := "GET /generate_204 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
		// A client that sends no more is taken for one that went away: this one stays.
		stay := func(*net.TCPConn) error { return nil }
		if answer := answerTo(t, at.Host, plain+plain+last, stay); strings.Count(answer, " 204 ") != 3 {
			t.Errorf("not three answers:\n%s", answer)
		}
	})
}

// answerTo sends bytes on a connection of their own, does something to it, and returns all that
// comes until the server closes it.
func answerTo(t *testing.T, address, request string, then func(*net.TCPConn) error) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(harness.Patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := then(conn.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		t.Fatalf("the connection stays open after %s bytes: %q", strconv.Itoa(len(answer)), answer)
	}
	return fmt.Sprintf("%s", answer)
}
