package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is what can be measured of a process from outside.
type process struct{ pid int }

// cpu is the time that all threads of the process have run, ended ones included.
func (p process) cpu() time.Duration {
	// The clock of a process by its id: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) in
	// Linux' include/linux/posix-timers_types.h.
	var spent unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|2), &spent); err != nil {
		return 0
	}
	return time.Duration(spent.Nano())
}

// memory is what a process holds, in bytes: all of it, its share of it, and the
// part that no file backs.
type memory struct{ resident, share, private int }

func (m memory) String() string {
	return fmt.Sprintf("%5.1f MB RSS, %5.1f MB PSS, %5.1f MB of it private",
		float64(m.resident)/1e6, float64(m.share)/1e6, float64(m.private)/1e6)
}

func (p process) memory() memory {
	return memory{
		resident: p.number("smaps_rollup", "Rss:") << 10,
		share:    p.number("smaps_rollup", "Pss:") << 10,
		private:  p.number("status", "RssAnon:") << 10,
	}
}

// peak is the most that was ever resident, in bytes.
func (p process) peak() int { return p.number("status", "VmHWM:") << 10 }

// written is what the process has caused to be written to disk, in bytes.
func (p process) written() int { return p.number("io", "write_bytes:") }

// number finds the number after a label in a file of /proc; 0 if there is none.
func (p process) number(file, label string) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, file))
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, label); found {
			number, _ := strconv.Atoi(strings.Fields(rest)[0])
			return number
		}
	}
	return 0
}

// quiet waits until the process has hardly anything to do.
func (p process) quiet() {
	for range 60 {
		before := p.cpu()
		time.Sleep(time.Second)
		if p.cpu()-before < 8*time.Millisecond {
			return
		}
	}
}

// flushed waits until the process has not written to disk for a while: what it
// puts off belongs to what came before. hearth puts off some things for ten seconds.
func (p process) flushed() {
	const silence = 12
	for last, since := p.written(), 0; since < silence; since++ {
		time.Sleep(time.Second)
		if now := p.written(); now != last {
			last, since = now, 0
		}
	}
}

// child is a server that this program has started.
type child struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func startChild(path string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(path, args...)}
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, c.cmd.Start()
}

func (c *child) stop() {
	c.cmd.Process.Signal(syscall.SIGTERM)
	force := time.AfterFunc(20*time.Second, func() { c.cmd.Process.Kill() })
	c.cmd.Wait()
	force.Stop()
}
