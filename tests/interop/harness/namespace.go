package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// LANAddress is the address of the server inside the private namespace: a
// private one, as on a home router, because the official client treats private
// hosts differently from public ones.
const LANAddress = "192.168.77.1"

// namespaceEnv says, in the re-executed program, which address to serve on.
const namespaceEnv = "HEARTH_TEST_ADDRESS"

// enterScript brings up the loopback device and a pair of virtual Ethernet
// devices, so that the client sees a network that is "up", and then becomes
// the program again. There is no default route: nothing can leave.
const enterScript = `set -e
ip link set lo up
ip link add lan0 type veth peer name lan1
ip addr add ` + LANAddress + `/24 dev lan0
ip addr add fd77::1/64 dev lan0 nodad
ip link set lan0 up
ip link set lan1 up
exec "$0" "$@"`

// EnterNamespace re-executes the program inside a private network namespace.
// It returns, with the address to serve on, only in the inner program, or in the
// outer one when no namespace can be had: then it says why, and the address is
// that of the loopback device.
func EnterNamespace() string {
	if address := os.Getenv(namespaceEnv); address != "" {
		return address
	}
	if os.Getenv("HEARTH_TEST_LOOPBACK") != "" {
		return loopback("HEARTH_TEST_LOOPBACK is set")
	}
	if err := namespaceWorks(); err != nil {
		return loopback(err.Error())
	}
	self, err := os.Executable()
	if err != nil {
		return loopback(err.Error())
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return loopback(err.Error())
	}
	args := append([]string{"unshare", "--net", "--", "sh", "-c", enterScript, self}, os.Args[1:]...)
	env := append(os.Environ(), namespaceEnv+"="+LANAddress)
	return loopback(syscall.Exec(unshare, args, env).Error())
}

func loopback(why string) string {
	fmt.Fprintf(os.Stderr, "interop: no private network namespace (%s); using loopback\n", why)
	os.Setenv(namespaceEnv, "127.0.0.1")
	return "127.0.0.1"
}

// namespaceWorks tries the whole set-up once, because what is allowed differs
// between machines and containers.
func namespaceWorks() error {
	out, err := exec.Command("unshare", "--net", "--", "sh", "-c", enterScript, "true").CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return errors.New(text)
	}
	return err
}

// FreePort finds a port that was free a moment ago on the address, for TCP and
// UDP. Servers that must come back on the same port after a restart need one.
func FreePort(t T, address string) string {
	t.Helper()
	for range 50 {
		tcp, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatalf("no free port on %s: %v", address, err)
		}
		_, port, _ := net.SplitHostPort(tcp.Addr().String())
		udp, err := net.ListenPacket("udp", net.JoinHostPort(address, port))
		tcp.Close()
		if err == nil {
			udp.Close()
			return port
		}
	}
	t.Fatalf("no port on %s is free for TCP and UDP", address)
	return ""
}
