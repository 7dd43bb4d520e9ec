package account_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// Two values never give one name.
func TestAppendValue(t *testing.T) {
	require.Equal(t, "a%2Fb%3Dc%2C%25%20%22%5C%C3%BC%00%7F", string(account.AppendValue(nil, "a/b=c,% \"\\ü\x00\x7f")))
	require.Equal(t, "shop-1_x.y:z@w+", string(account.AppendValue(nil, "shop-1_x.y:z@w+")))
	require.NotEqual(t, account.KeyOf([]byte("a")), account.KeyOf([]byte("b")))
}
