// Package sim runs samplers on the same made-up traffic: ambit's controller with a kernel that decides as the real one does,
// samplers of dynsampler-go as they are, and the formula of Jaeger's adaptive sampling. Time is that of a bubble of
// testing/synctest, so minutes pass in seconds and every run gives the same numbers.
//
//	make sim     all scenarios; build/sim.json, the table and the plots of docs/sampling.md
package sim
