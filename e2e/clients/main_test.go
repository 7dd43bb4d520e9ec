package clients_test

import (
	"os"
	"testing"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Sharing(m)) }
