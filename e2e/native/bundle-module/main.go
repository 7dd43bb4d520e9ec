// Command bundle-module is the dynamic module of every filter and the wreck, for tests.
package main

import (
	"github.com/inlet-proxy/inlet/e2e/native/wreck"
	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/shared/adapters/module"
	_ "github.com/inlet-proxy/inlet/shared/adapters/module/export"
)

func init() { module.Serve(append(filters.All, wreck.Factory)...) }

func main() {}
