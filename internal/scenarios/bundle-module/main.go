// Command bundle-module is the dynamic module of every filter and the probe,
// for tests.
package main

import (
	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/scenarios/probe"
	"github.com/inlet-proxy/inlet/shared/adapters/module"
	_ "github.com/inlet-proxy/inlet/shared/adapters/module/export"
)

func init() { module.Serve(append(filters.All, probe.Factory)...) }

func main() {}
