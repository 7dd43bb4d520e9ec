package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/inlet-proxy/inlet/bench/replay/fleet"
)

// draw draws the pictures for the cells that there are, as PNG and SVG.
func (rs results) draw(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, trace := range rs.traces() {
		bars := rs.ttftBars(trace)
		hits := rs.overProxies(trace)
		for name, p := range map[string]*plot.Plot{"ttft": bars, "hits": hits} {
			if p == nil {
				continue
			}
			if err := save(p, filepath.Join(folder, "routing-"+name+"-"+trace)); err != nil {
				return err
			}
		}
	}
	if p := rs.overRate(); p != nil {
		return save(p, filepath.Join(folder, "routing-sharegpt-like"))
	}
	return nil
}

func save(p *plot.Plot, path string) error {
	for _, ext := range []string{".png", ".svg"} {
		if err := p.Save(22*vg.Centimeter, 12*vg.Centimeter, path+ext); err != nil {
			return err
		}
	}
	return nil
}

// colours are those of Okabe and Ito (2008), which everybody can distinguish.
var colours = map[string]color.Color{
	"round-robin":    color.RGBA{0x99, 0x99, 0x99, 0xff},
	"random":         color.RGBA{0x00, 0x00, 0x00, 0xff},
	"least-request":  color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	"weighted":       color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	"sticky":         color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	"epp":            color.RGBA{0x00, 0x9e, 0x73, 0xff},
	"infinite-cache": color.RGBA{0xcc, 0x79, 0xa7, 0xff},
}

// traces are the names of the traces of which there are cells.
func (rs results) traces() (names []string) {
	for _, c := range rs {
		name := c.play.work.Name
		if strings.HasPrefix(c.play.name, name+"-8r-") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (rs results) of(play, mode string) *fleet.Result {
	for _, c := range rs {
		if c.play.name == play && c.mode.name == mode {
			return c.result
		}
	}
	return nil
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font.Size, p.Title.Padding = vg.Points(13), vg.Points(8)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font.Size, a.Tick.Label.Font.Size = vg.Points(11), vg.Points(10)
		a.Label.Padding = vg.Points(4)
	}
	p.Legend.Top, p.Legend.Padding, p.Legend.ThumbnailWidth = true, vg.Points(2), vg.Points(18)
	p.Legend.TextStyle.Font.Size = vg.Points(10)
	return p
}

// logarithmic makes the time axis logarithmic, with labels in seconds.
func logarithmic(p *plot.Plot, least, most float64) {
	p.Y.Scale = plot.LogScale{}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(least))), math.Pow(10, math.Ceil(math.Log10(most)))
	p.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) (ticks []plot.Tick) {
		for decade := low; decade <= high*1.001; decade *= 10 {
			ticks = append(ticks, plot.Tick{Value: decade, Label: strconv.FormatFloat(decade, 'g', 4, 64) + " s"})
			for k := 2.0; k < 10 && decade*k < high; k++ {
				ticks = append(ticks, plot.Tick{Value: decade * k})
			}
		}
		return ticks
	})
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.Gray{0xdd}
	p.Add(grid)
}

// ttftBars shows the quantiles of the time to first token for each mode, with one proxy and with four.
func (rs results) ttftBars(trace string) *plot.Plot {
	quantiles := []float64{0.5, 0.95, 0.99}
	shades := []uint8{0x60, 0xb0, 0xff}
	p := newPlot("Time to the first token: p50, p95, p99\n"+trace+", 8 replicas", "", "")
	least, most := math.Inf(1), 0.0
	var names []string
	var bars []*column
	for _, proxies := range []int{1, 4} {
		for _, m := range modes {
			r := rs.of(fmt.Sprintf("%s-8r-%dp", trace, proxies), m.name)
			if r == nil {
				continue
			}
			for i, q := range quantiles {
				c := color.NRGBAModel.Convert(colours[m.name]).(color.NRGBA)
				c.A = shades[i]
				b := &column{x: float64(len(names)) + (float64(i)-1)*0.27, width: 0.25, to: r.TTFT(q).Seconds(), colour: c}
				least, most = min(least, b.to), max(most, b.to)
				bars = append(bars, b)
			}
			names = append(names, fmt.Sprintf("%s\n%d %s", strings.ReplaceAll(m.name, "-", "-\n"), proxies, map[bool]string{true: "proxy", false: "proxies"}[proxies == 1]))
		}
	}
	if len(names) == 0 {
		return nil
	}
	logarithmic(p, least, most)
	for _, b := range bars {
		b.from = p.Y.Min
		p.Add(b)
	}
	p.NominalX(names...)
	p.X.Tick.Label.Font.Size = vg.Points(8)
	p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4
	return p
}

// column is a bar on any scale; those of the library begin at zero, which a logarithmic scale does not have.
type column struct {
	x, width, from, to float64
	colour             color.Color
}

// Plot implements plot.Plotter.
func (b *column) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	left, right, bottom, top := x(b.x-b.width/2), x(b.x+b.width/2), y(b.from), y(b.to)
	c.FillPolygon(b.colour, []vg.Point{{X: left, Y: bottom}, {X: left, Y: top}, {X: right, Y: top}, {X: right, Y: bottom}})
}

// overProxies shows the share of the prompts that was in the replicas' caches, by the number of proxies.
func (rs results) overProxies(trace string) *plot.Plot {
	p := newPlot("Blocks of prompts found in a cache\n"+trace+", 8 replicas", "proxies that share the traffic", "share of all blocks")
	positions := []int{1, 4, 16}
	found := 0.0
	for _, m := range modes {
		var points plotter.XYs
		for i, proxies := range positions {
			if r := rs.of(fmt.Sprintf("%s-8r-%dp", trace, proxies), m.name); r != nil {
				points = append(points, plotter.XY{X: float64(i), Y: r.HitRatio()})
				found = max(found, r.HitRatio())
			}
		}
		if len(points) > 1 {
			addLine(p, m.name, points, false)
		}
	}
	if found == 0 {
		return nil
	}
	for _, c := range rs {
		if c.play.name == trace+"-8r-1p" {
			best := c.play.bound.HitRatio()
			addLine(p, "infinite-cache", plotter.XYs{{X: 0, Y: best}, {X: 2, Y: best}}, true)
			break
		}
	}
	p.NominalX("1", "4", "16")
	p.X.Min, p.X.Max, p.Y.Min = -0.1, 2.8, 0 // space for the legend
	return p
}

// overRate shows the p95 of the time to first token by the number of questions per second.
func (rs results) overRate() *plot.Plot {
	p := newPlot("Time to the first token, p95: sharegpt-like, 10 replicas", "questions a second", "")
	least, most := math.Inf(1), 0.0
	for _, m := range modes {
		var points plotter.XYs
		for rate := 100; rate <= 1000; rate += 100 {
			if r := rs.of(fmt.Sprintf("sharegpt-like-10r-%dqps", rate), m.name); r != nil {
				v := r.TTFT(0.95).Seconds()
				points = append(points, plotter.XY{X: float64(rate), Y: v})
				least, most = min(least, v), max(most, v)
			}
		}
		if len(points) > 1 {
			addLine(p, m.name, points, false)
		}
	}
	if most == 0 {
		return nil
	}
	logarithmic(p, least, most)
	p.Legend.Left = true
	return p
}

func addLine(p *plot.Plot, name string, points plotter.XYs, dashed bool) {
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return // of points that are not numbers
	}
	line.Color, line.Width = colours[name], vg.Points(1.8)
	dots.Color, dots.Radius, dots.Shape = colours[name], vg.Points(3), draw.CircleGlyph{}
	if name == "sticky" {
		line.Width = vg.Points(3)
	}
	if dashed {
		line.Dashes = []vg.Length{vg.Points(6), vg.Points(4)}
		p.Add(line)
		p.Legend.Add(name, line)
		return
	}
	p.Add(line, dots)
	p.Legend.Add(name, line, dots)
}
