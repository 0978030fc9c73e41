package sim

import (
	"fmt"
	"math"
	"strings"
)

// Sizes of a plot, in pixels.
const (
	plotWidth, plotHeight = 760, 300
	plotLeft, plotRight   = 48, 170
	plotTop, plotBottom   = 28, 34
)

var plotColours = []string{"#0b6e4f", "#c1292e", "#e58c23", "#2176ae", "#7d5ba6"}

// plot draws the spans of each second, by one scenario's samplers, on a logarithmic scale, as SVG.
func plot(all []Result) string {
	seconds := len(all[0].kept)
	most := 10.
	for _, r := range all {
		for _, n := range r.kept {
			most = max(most, float64(n))
		}
	}
	top := math.Ceil(math.Log10(most))
	x := func(second int) float64 {
		return plotLeft + float64(second)*(plotWidth-plotLeft-plotRight)/float64(max(seconds-1, 1))
	}
	y := func(n float64) float64 {
		return plotHeight - plotBottom - math.Log10(max(n, 1))/top*(plotHeight-plotTop-plotBottom)
	}
	var b strings.Builder
	text := func(x, y float64, anchor, colour, s string) {
		fmt.Fprintf(&b, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", x, y, anchor, colour, s)
	}
	line := func(from, to [2]float64, colour, dash string) {
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\" stroke-dasharray=\"%s\" fill=\"none\"/>\n", from[0], from[1], to[0], to[1], colour, dash)
	}
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"11\">\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", plotWidth, plotHeight)
	text(plotLeft, 16, "start", "#222", all[0].Scenario+": spans per second, logarithmic")
	right := float64(plotWidth - plotRight)
	for power := 0.; power <= top; power++ {
		at := y(math.Pow(10, power))
		line([2]float64{plotLeft, at}, [2]float64{right, at}, "#ddd", "")
		text(plotLeft-6, at+4, "end", "#222", fmt.Sprintf("%.0f", math.Pow(10, power)))
	}
	for second := 0; second <= seconds; second += max(seconds/6/30*30, 30) {
		text(x(min(second, seconds-1)), plotHeight-14, "middle", "#222", fmt.Sprintf("%d s", second))
	}
	line([2]float64{plotLeft, y(budget)}, [2]float64{right, y(budget)}, "#222", "4 3")
	text(right+8, y(budget)+4, "start", "#222", "budget")
	// The first is drawn last, over the others.
	for i := len(all) - 1; i >= 0; i-- {
		var path strings.Builder
		for second, n := range all[i].kept {
			op := "L"
			if second == 0 {
				op = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", op, x(second), y(float64(n)))
		}
		fmt.Fprintf(&b, "<path d=\"%s\" stroke=\"%s\" stroke-width=\"1.2\" fill=\"none\"/>\n", &path, plotColours[i%len(plotColours)])
		text(right+8, float64(plotTop+20+16*i), "start", plotColours[i%len(plotColours)], all[i].Sampler)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
