// Command bundle-module is the dynamic module of every filter and the probe,
// for tests.
package main

import (
	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/abi/module"
	_ "github.com/inlet-proxy/inlet/shared/abi/module/export"
	"github.com/inlet-proxy/inlet/shared/hosttest/probe"
)

func init() { module.Serve(append(filters.All, probe.Factory)...) }

func main() {}
