// The command control-bench measures a control server with simulated clients: what
// memory, processor time, bytes and patience a tailnet of many devices costs. It
// starts hearth, or Headscale, or is pointed at a server that runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	hearthProgram := flag.String("hearth", "", "`program` hearth")
	headscaleProgram := flag.String("headscale", "", "`program` headscale, to be measured as well")
	wrapper := flag.String("under", "", "`command` under which hearth runs, such as a profiler")
	url := flag.String("url", "", "`URL` of a server that runs, instead of starting one")
	authKey := flag.String("auth-key", "", "reusable preauth `key` for that server")
	region := flag.Int("region", 900, "number of the relay `region` that devices call home there")
	pid := flag.Int("pid", 0, "process `id` of that server, if it runs here")
	sizes := flag.String("n", "100,300,1000", "numbers of devices")
	changes := flag.Int("changes", 40, "changes of an endpoint that are measured")
	atOnce := flag.Int("at-once", 8, "devices that join at the same time")
	patience := flag.Duration("patience", 10*time.Minute, "how long one step may take")
	board := flag.String("full", "", "fill hearth up to the limits of this `board` or class of memory, and hold it to its budget")
	budget := flag.Int("budget", 0, "`bytes` to hold it to instead")
	changed := flag.String("limits", "", "`key=value,...`: limits to change from those of the board")
	soaking := flag.Duration("soak", 0, "let a tailnet of -devices live and change for so `long`, with restarts, and check it")
	devices := flag.Int("devices", 300, "`number` of devices of -soak")
	seed := flag.Uint64("seed", 0, "`number` from which the decisions of -soak follow; 0 takes any")
	backups := flag.Bool("backups", false, "make backups during -soak")
	cgroup := flag.String("cgroup", "", "`directory` of the control group that hearth runs in")
	flag.Parse()
	if *board != "" {
		f := full{program: *hearthProgram, board: *board, cgroup: *cgroup, changed: *changed, budget: *budget}
		if err := f.run(); err != nil {
			log.Fatal(err)
		}
		return
	}

	if *soaking > 0 {
		s := soak{program: *hearthProgram, duration: *soaking, seed: *seed, size: *devices, backups: *backups}
		for s.seed == 0 {
			s.seed = uint64(rand.Uint32())
		}
		if err := s.run(); err != nil {
			log.Fatal(err)
		}
		return
	}

	var contestants []contestant
	if *url != "" {
		contestants = append(contestants, contestant{*url, func(string, int) (*child, *server, error) {
			s, err := newServer(*url, *authKey)
			if err == nil {
				s.region = *region
			}
			return nil, s, err
		}})
	}
	if *hearthProgram != "" {
		contestants = append(contestants, hearth(*hearthProgram, strings.Fields(*wrapper)))
	}
	if *headscaleProgram != "" {
		contestants = append(contestants, headscale(*headscaleProgram))
	}
	if len(contestants) == 0 {
		log.Fatal("nothing to measure: give -hearth, -headscale or -url")
	}
	for word := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(word)
		if err != nil || size < 2 || size > 1<<16 {
			log.Fatalf("-n: %q is no number of devices", word)
		}
		for _, c := range contestants {
			b := bench{size: size, changes: *changes, atOnce: *atOnce, patience: *patience, pid: *pid}
			if err := b.run(c); err != nil {
				log.Fatalf("%s with %d devices: %v", c.name, size, err)
			}
		}
	}
}

type bench struct {
	size, changes, atOnce int
	patience              time.Duration
	pid                   int

	server  process
	clients process
	fleet   *fleet
}

func (b *bench) run(c contestant) error {
	dir, err := os.MkdirTemp(".", "data-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	child, server, err := c.start(dir, b.size)
	if err != nil {
		return err
	}
	b.server, b.clients = process{b.pid}, process{os.Getpid()}
	if child != nil {
		defer child.stop()
		b.server.pid = child.cmd.Process.Pid
	}
	b.fleet = newFleet(server, b.size)
	defer b.fleet.leave()
	fmt.Printf("\n%s, %d devices (load of the machine before: %s)\n", c.name, b.size, load())
	for _, part := range []func(context.Context) error{b.join, b.change, b.comeBack} {
		ctx, cancel := context.WithTimeout(context.Background(), b.patience)
		err := part(ctx)
		cancel()
		if err != nil {
			if child != nil {
				err = fmt.Errorf("%w\n%s", err, child.log.String())
			}
			return err
		}
	}
	return nil
}

func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

func report(what, format string, args ...any) {
	fmt.Printf("  %-36s %s\n", what, fmt.Sprintf(format, args...))
}

// effort is what a step has cost.
type effort struct {
	server, clients, took time.Duration
	bytes, messages       int64
	plain                 int64
}

// measure runs a step.
func (b *bench) measure(step func() error) (effort, error) {
	f := b.fleet
	before := effort{b.server.cpu(), b.clients.cpu(), 0, received.Load(), f.messages.Load(), f.plainBytes.Load()}
	begin := time.Now()
	err := step()
	return effort{
		server: b.server.cpu() - before.server, clients: b.clients.cpu() - before.clients, took: time.Since(begin),
		bytes: received.Load() - before.bytes, messages: f.messages.Load() - before.messages,
		plain: f.plainBytes.Load() - before.plain,
	}, err
}

// join lets all devices in and waits until all know all.
func (b *bench) join(ctx context.Context) error {
	b.server.quiet()
	report("memory, idle", "%v", b.server.memory())
	var joined time.Duration
	e, err := b.measure(func() error {
		begin := time.Now()
		if err := b.fleet.all(b.atOnce, func(d *device) error { return d.join(ctx) }); err != nil {
			return err
		}
		joined = time.Since(begin)
		return b.fleet.converge(ctx)
	})
	if err != nil {
		return err
	}
	if err := b.fleet.observer.check(b.size-1, b.fleet.server.region); err != nil {
		return err
	}
	if strays := b.fleet.observer.strays; strays > 0 {
		report("patches for unknown nodes", "%d to one device", strays)
	}
	report("joins per second, "+strconv.Itoa(b.atOnce)+" at once", "%.0f (all in after %.2f s, all know all after %.2f s)",
		float64(b.size)/joined.Seconds(), joined.Seconds(), e.took.Seconds())
	report("CPU to join all and converge", "%.2f s (the clients' own: %.2f s)", e.server.Seconds(), e.clients.Seconds())
	report("bytes to clients while joining", "%.1f MB in %d messages of %.1f MB text", float64(e.bytes)/1e6, e.messages, float64(e.plain)/1e6)
	b.server.quiet()
	report("memory, converged", "%v (peak %.1f MB)", b.server.memory(), float64(b.server.peak())/1e6)
	return nil
}

// change measures how a change of one device's endpoints spreads.
func (b *bench) change(ctx context.Context) error {
	b.server.flushed()
	written := b.server.written()
	var times []time.Duration
	e, err := b.measure(func() error {
		for number := range b.changes {
			after, err := b.fleet.changeOne(ctx, number)
			if err != nil {
				return err
			}
			times = append(times, after)
			time.Sleep(300 * time.Millisecond) // far apart, so that each is a message of its own
		}
		return nil
	})
	if err != nil {
		return err
	}
	count := len(times)
	slices.Sort(times)
	at := func(share float64) float64 { return times[min(int(share*float64(count)), count-1)].Seconds() * 1e3 }
	report("a change reaches the last peer", "p50 %.1f ms, p99 %.1f ms (of %d)", at(0.5), at(0.99), count)
	report("CPU per change", "%.2f ms (the clients' own: %.2f ms)", e.server.Seconds()*1e3/float64(count), e.clients.Seconds()*1e3/float64(count))
	report("bytes to clients per change", "%d in %d messages", e.bytes/int64(count), e.messages/int64(count))
	report("disk written per endpoint change", "%d bytes", (b.server.written()-written)/count)
	return nil
}

// comeBack cuts all connections and lets all devices come back at once.
func (b *bench) comeBack(ctx context.Context) error {
	b.server.quiet()
	e, err := b.measure(func() error {
		b.fleet.cut()
		if err := b.fleet.all(b.size, func(d *device) error { return d.comeBack(ctx) }); err != nil {
			return err
		}
		return b.fleet.converge(ctx)
	})
	if err != nil {
		return err
	}
	report("all dropped, all back", "%.2f s of CPU, %.2f s (the clients' own: %.2f s of CPU)", e.server.Seconds(), e.took.Seconds(), e.clients.Seconds())
	report("bytes to clients coming back", "%.1f MB of %.1f MB text", float64(e.bytes)/1e6, float64(e.plain)/1e6)
	b.server.quiet()
	report("memory, all back", "%v (peak %.1f MB)", b.server.memory(), float64(b.server.peak())/1e6)
	return nil
}
