// Streets: the lines of the road map, unpacked, and lines of plotly made of any of them.

function unpacked(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

const streets = (() => {
  const points = unpacked(data.streets.points, Uint16Array);
  const lengths = unpacked(data.streets.lengths, Uint16Array);
  const starts = new Uint32Array(lengths.length);
  for (let i = 1; i < lengths.length; i++) starts[i] = starts[i - 1] + lengths[i - 1];
  return { points, lengths, starts, metres: data.streets.metres };
})();

/** One plotly line of many streets, with gaps between them; `of` tells for each point whose it is. */
function lineOf(chosen) {
  let size = 0;
  for (const street of chosen) size += streets.lengths[street] + 1;
  const x = new Float32Array(size), y = new Float32Array(size), of = new Uint32Array(size);
  let at = 0;
  for (const street of chosen) {
    const end = streets.starts[street] + streets.lengths[street];
    for (let i = streets.starts[street]; i < end; i++, at++) {
      x[at] = streets.points[2 * i] * streets.metres;
      y[at] = streets.points[2 * i + 1] * streets.metres;
      of[at] = street;
    }
    x[at] = y[at] = NaN;
    of[at++] = street;
  }
  return { x, y, of };
}

/** First or last point of a road that is given as 2 * street + (1 where it runs backwards). */
function endOf(signed, last) {
  const street = signed >> 1;
  const atEnd = last !== Boolean(signed & 1);
  const i = streets.starts[street] + (atEnd ? streets.lengths[street] - 1 : 0);
  return [streets.points[2 * i] * streets.metres, streets.points[2 * i + 1] * streets.metres];
}
