// Package retention decides which restore points stay and which go, and says
// why. It is pure: it reads no file and no clock, and the same values give the
// same decisions in the same order.
//
// # Series
//
// Points are judged per series: one machine under one job. No point of another
// series has any influence. Within a series the order is the sequence number,
// never the clock.
//
// # Scheduled points and extras
//
// A point that the schedule asked for has a slot. In a series that has such
// points, a point without a slot (a manual run) is an extra, and so is every
// point of a slot but its newest (a retry). In a series in which no point has
// a slot each point counts as its own slot, and there are no extras.
//
// # What keeps a point
//
// A point stays when at least one of these holds:
//
//   - pinned: it has a pin.
//   - last N: its slot is one of the N newest. Of a slot the newest point counts.
//   - hourly, daily, weekly, monthly, yearly N: it is the newest point of one of
//     the N newest periods. Periods are those of the local calendar, weeks are
//     ISO weeks, and only periods that have points count, as in restic and borg:
//     "daily 7" after a month without runs still keeps seven days. An hour that
//     occurs twice when summer time ends is two hours.
//   - within SPAN: it is younger than the span.
//   - at least SPAN: the same, as a floor under all other rules.
//   - extra SPAN: it is an extra younger than that; a retry only as long as the
//     newest point of its slot stays.
//   - it is the newest point, or the newest scheduled point, of its series,
//     unless the rule says ExpireNewest.
//
// Extras never count for last, and take no place in a period from a scheduled
// point. A manual run stands in for the schedule in a period in which it made
// no point, within the time that the scheduled marks of the rule span; a rule
// has at most as many marks of this kind as of the other.
//
// Spans of days, weeks, months and years are those of the local calendar: from
// the 20th, one month ends on the 20th at the same time of day.
//
// An empty rule keeps everything.
//
// # What holds
//
// The tests hold the package to these sentences:
//
//   - A higher count or a longer span never loses a point, once a rule is not
//     empty.
//   - When the points that go are gone, the same question lets no more go.
//   - As time passes points go, and none comes back.
//   - A manual run never costs a scheduled point its place.
//   - A clock that is wrong for a while does not make the newest points go: last
//     and the periods follow the sequence, and for within and at least a point
//     is as young as the youngest before it.
//
// One exception: with ExpireNewest and without last, a manual run may turn from
// an extra into a slot of its own when the last scheduled point has gone.
package retention
