package harness

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"tailscale.com/control/controlbase"
	"tailscale.com/types/key"
)

// rawVersion is a capability version whose connections begin with HTTP/2 at
// once, without an early payload.
const rawVersion = 40

// Raw is a control connection whose HTTP/2 frames the test sends itself. It
// reads all frames, and gives the server no more room for responses than the
// window that it was opened with.
type Raw struct {
	conn   net.Conn
	framer *http2.Framer

	mu     sync.Mutex
	next   uint32
	resets map[uint32]http2.ErrCode
	ended  map[uint32]bool
}

// DialRaw opens a control connection of the machine, with this initial window
// of each stream.
func DialRaw(t T, s *Server, machine key.MachinePrivate, window uint32) *Raw {
	t.Helper()
	conn, err := dialNoise(t, s, machine)
	if err != nil {
		t.Fatalf("a raw control connection: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &Raw{
		conn: conn, framer: http2.NewFramer(conn, conn), next: 1,
		resets: map[uint32]http2.ErrCode{}, ended: map[uint32]bool{},
	}
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = conn.Write([]byte(http2.ClientPreface))
	if err == nil {
		err = r.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	}
	if err != nil {
		t.Fatalf("a raw control connection: %v", err)
	}
	go r.read()
	return r
}

func dialNoise(t T, s *Server, machine key.MachinePrivate) (net.Conn, error) {
	serverKey, err := FetchServerKey(s.URL, rawVersion)
	if err != nil {
		return nil, err
	}
	handshake, finish, err := controlbase.ClientDeferred(machine, serverKey, rawVersion)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", s.HTTP)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "POST /ts2021 HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n"+
		"Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\nX-Tailscale-Handshake: %s\r\n\r\n",
		s.HTTP, base64.StdEncoding.EncodeToString(handshake))
	if err != nil {
		return nil, err
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("/ts2021 answers %s", response.Status)
	}
	return finish(Within(t, Patience), &buffered{Conn: conn, reader: reader})
}

// buffered is a connection of which some bytes were read already.
type buffered struct {
	net.Conn
	reader *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.reader.Read(p) }

func (r *Raw) read() {
	for {
		frame, err := r.framer.ReadFrame()
		if err != nil {
			return
		}
		r.mu.Lock()
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				r.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				r.framer.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			// The text of a refusal may find no room.
			r.ended[frame.StreamID] = frame.StreamEnded() || frame.PseudoValue("status") != "200"
		case *http2.DataFrame:
			r.ended[frame.StreamID] = r.ended[frame.StreamID] || frame.StreamEnded()
		case *http2.RSTStreamFrame:
			r.resets[frame.StreamID] = frame.ErrCode
		}
		r.mu.Unlock()
	}
}

// Post sends a request and does not wait for the answer. It returns the number
// of the stream.
func (r *Raw) Post(t T, path string, body []byte) uint32 {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	stream := r.next
	r.next += 2
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range []string{":method POST", ":scheme https", ":authority unused", ":path " + path} {
		name, value, _ := strings.Cut(field, " ")
		encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	err := r.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true,
	})
	if err == nil {
		err = r.framer.WriteData(stream, true, body)
	}
	if err != nil {
		t.Fatalf("a raw request: %v", err)
	}
	return stream
}

// Open are the streams that the server has neither refused, ended nor reset.
func (r *Raw) Open() []uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var open []uint32
	for stream := uint32(1); stream < r.next; stream += 2 {
		if _, isReset := r.resets[stream]; !isReset && !r.ended[stream] {
			open = append(open, stream)
		}
	}
	return open
}

// Resets are the streams that the server has reset, with the reason.
func (r *Raw) Resets() map[uint32]http2.ErrCode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.resets)
}
