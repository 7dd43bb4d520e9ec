package process

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFreePort(t *testing.T) {
	port, err := FreePort()
	require.NoError(t, err)
	require.True(t, port >= firstPort && port < lastPort, port)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	require.NoError(t, err)
	require.False(t, isFree(port, []string{"127.0.0.1"}))
	require.NoError(t, l.Close())
	require.True(t, isFree(port, []string{"127.0.0.1"}))
}
