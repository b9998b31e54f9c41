package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"tailscale.com/control/controlhttp"
	"tailscale.com/control/ts2021"
)

const (
	// Windows of the official client, which takes the defaults of Go's HTTP/2.
	streamWindow     = 4 << 20
	connectionWindow = 1 << 30
	// frameBytes is what fits into one frame.
	frameBytes = 16 << 10
	// replenishFrom is how many received bytes are acknowledged at once.
	replenishFrom = 1 << 20
)

// received counts the bytes that came from the server, below Noise.
var received atomic.Int64

// countingConn counts what it reads.
type countingConn struct{ net.Conn }

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	received.Add(int64(n))
	return n, err
}

// wire is one control connection: the official Noise, and HTTP/2 driven by hand in
// one goroutine, because a thousand of them share two processors with the server.
type wire struct {
	conn   net.Conn
	framer *http2.Framer
	// gone is closed when the connection has ended and nothing of it is handled any more.
	gone chan struct{}

	mu       sync.Mutex // for writing, and the fields below
	header   bytes.Buffer
	encoder  *hpack.Encoder
	next     uint32
	calls    map[uint32]*call
	ended    error
	consumed int
}

// call is a request that has not been answered to its end.
type call struct {
	status   int
	body     []byte
	consumed int
	// each, when set, gets the body in pieces; otherwise it is gathered in body.
	each func(piece []byte)
	// done gets nil at the end of the answer.
	done chan error
}

// dial connects and shakes hands.
func dial(ctx context.Context, instead func(context.Context) (net.Conn, error), dialer *controlhttp.Dialer) (*wire, error) {
	dialer.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		if instead != nil {
			return instead(ctx)
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return countingConn{conn}, err
	}
	noise, err := dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := ts2021.NewConn(noise.Conn, func() {})
	w := &wire{conn: conn, framer: http2.NewFramer(conn, conn), next: 1, calls: make(map[uint32]*call), gone: make(chan struct{})}
	w.framer.SetReuseFrames()
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.encoder = hpack.NewEncoder(&w.header)
	// One write, so that it is one Noise record as in the official client.
	var hello bytes.Buffer
	hello.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&hello, nil)
	framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow})
	framer.WriteWindowUpdate(0, connectionWindow)
	if _, err := conn.Write(hello.Bytes()); err != nil {
		conn.Close()
		return nil, err
	}
	go w.read()
	return w, nil
}

// close drops the connection without a word, as a client that loses its network does.
func (w *wire) close() { w.conn.Close() }

// start sends a request.
func (w *wire) start(path string, body []byte, each func([]byte)) (*call, error) {
	return w.send(path, body, len(body), each)
}

// half sends so many requests with the larger part of their bodies, which do not go on.
func (w *wire) half(path string, requests, announced int) error {
	// All pieces of a round fit into half of the window, which the server then opens again.
	const piece, pause = 4000, 20 * time.Millisecond
	first := w.next
	for range requests {
		if _, err := w.send(path, make([]byte, piece), announced, nil); err != nil {
			return err
		}
	}
	for sent := piece; sent+2*piece < announced; sent += piece {
		time.Sleep(pause)
		var out bytes.Buffer
		framer := http2.NewFramer(&out, nil)
		for number := range requests {
			framer.WriteData(first+2*uint32(number), false, make([]byte, piece))
		}
		if _, err := w.conn.Write(out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (w *wire) send(path string, body []byte, announced int, each func([]byte)) (*call, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != nil {
		return nil, w.ended
	}
	c := &call{each: each, done: make(chan error, 1)}
	id := w.next
	w.next += 2
	w.calls[id] = c
	w.header.Reset()
	for _, field := range [][2]string{
		{":authority", "unused"}, {":method", "POST"}, {":path", path}, {":scheme", "https"},
		{"content-length", strconv.Itoa(announced)}, {"user-agent", "Go-http-client/2.0"},
	} {
		w.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.header.Bytes(), EndHeaders: true})
	isWhole := len(body) == announced
	for len(body) > frameBytes {
		framer.WriteData(id, false, body[:frameBytes])
		body = body[frameBytes:]
	}
	framer.WriteData(id, isWhole, body)
	_, err := w.conn.Write(out.Bytes())
	return c, err
}

// busyFor bounds how long a request is sent again to a server that is busy; clients do so, too.
const busyFor = 30 * time.Second

// post sends a request and waits for its answer. It sends it again while the server is busy (503).
func (w *wire) post(ctx context.Context, path string, body []byte) ([]byte, error) {
	for until := time.Now().Add(busyFor); ; time.Sleep(50 * time.Millisecond) {
		status, answer, err := w.exchange(ctx, path, body)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		case status == http.StatusOK:
			return answer, nil
		case status != http.StatusServiceUnavailable || time.Now().After(until):
			return nil, fmt.Errorf("%s: status %d: %.200s", path, status, answer)
		}
	}
}

// exchange sends a request once, and gives the status and the body of its answer.
func (w *wire) exchange(ctx context.Context, path string, body []byte) (int, []byte, error) {
	c, err := w.start(path, body, nil)
	if err != nil {
		return 0, nil, err
	}
	select {
	case err := <-c.done:
		return c.status, c.body, err
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

// read handles what the server sends until the connection ends.
func (w *wire) read() {
	defer close(w.gone)
	var err error
	for err == nil {
		var frame http2.Frame
		if frame, err = w.framer.ReadFrame(); err == nil {
			err = w.handle(frame)
		}
	}
	w.conn.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = err
	for _, c := range w.calls {
		c.done <- err
	}
	clear(w.calls)
}

func (w *wire) handle(frame http2.Frame) error {
	id := frame.Header().StreamID
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.calls[id]
	end := func(err error) {
		if c != nil {
			delete(w.calls, id)
			c.done <- err
		}
	}
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return w.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return w.framer.WritePing(true, frame.Data)
		}
	case *http2.MetaHeadersFrame:
		if c == nil {
			return nil
		}
		c.status, _ = strconv.Atoi(frame.PseudoValue("status"))
		if frame.StreamEnded() {
			end(nil)
		}
	case *http2.DataFrame:
		if err := w.acknowledge(id, c, int(frame.Header().Length)); err != nil || c == nil {
			return err
		}
		if c.each != nil && c.status == http.StatusOK {
			c.each(frame.Data())
		} else {
			c.body = append(c.body, frame.Data()...)
		}
		if frame.StreamEnded() {
			end(nil)
		}
	case *http2.RSTStreamFrame:
		end(fmt.Errorf("reset: %v", frame.ErrCode))
	case *http2.GoAwayFrame:
		return errors.New("the server goes away")
	}
	return nil
}

// acknowledge lets the server send more.
func (w *wire) acknowledge(id uint32, c *call, bytes int) error {
	if w.consumed += bytes; w.consumed >= replenishFrom {
		if err := w.framer.WriteWindowUpdate(0, uint32(w.consumed)); err != nil {
			return err
		}
		w.consumed = 0
	}
	if c == nil {
		return nil
	}
	if c.consumed += bytes; c.consumed >= replenishFrom {
		if err := w.framer.WriteWindowUpdate(id, uint32(c.consumed)); err != nil {
			return err
		}
		c.consumed = 0
	}
	return nil
}

// Each page comes over a connection of its own, as from clients that just start.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// fetch reads a page over plain HTTP.
func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	response, err := plain.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return body, err
}
