package formation

import (
	"fmt"
	"net"
	"strconv"
)

// CheckAddress refuses what can't be the address of a replica: it is HOST:PORT,
// of 255 bytes at most, with a host that is a certain one and a port from 1 to
// 65535. Whether anybody is there is not asked.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || len(address) > addressBytesMax {
		return fmt.Errorf("%q is no address: it is HOST:PORT", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is no address: its port is not from 1 to 65535", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q is no address: its host stands for any, and others need a certain one", address)
	}
	return nil
}
