import {textTable} from '../shared/table.ts';
import type {CodecFigures} from './codecs.ts';
import type {Contender} from './contenders.ts';
import {median, medianRatio, type Times} from './rounds.ts';

export function timesTable(contenders: readonly Contender[], times: Times, reference: string, bytes: number): string {
  return textTable(
    ['What', 'Median s', 'All s', 'MB/s', `Times ${contenders.find(({id}) => id === reference)?.title}`],
    contenders.map(({id, title}) => {
      const all = times.get(id) ?? [];
      const seconds = median(all);
      return [
        title,
        seconds.toFixed(2),
        all.map((each) => each.toFixed(2)).join(' '),
        (bytes / 1e6 / seconds).toFixed(0),
        medianRatio(times, id, reference).toFixed(2),
      ];
    }),
  );
}

export function codecTable(figures: readonly CodecFigures[]): string {
  return textTable(
    ['Codec', 'Level', 'CPU ms for 1 MB', 'MB/s on one core', 'Smaller by'],
    figures.map(({codec, level, cpuMsPerMb, reduction}) => [
      codec,
      String(level),
      cpuMsPerMb.toFixed(1),
      (1000 / cpuMsPerMb).toFixed(0),
      `${(100 * reduction).toFixed(1)} %`,
    ]),
  );
}

export interface MemoryFigure {
  what: string;
  dumpBytes: number;
  peakBytes: number;
}

export function memoryTable(figures: readonly MemoryFigure[]): string {
  return textTable(
    ['What', 'Plain dump MB', 'Peak MB'],
    figures.map(({what, dumpBytes, peakBytes}) => [what, (dumpBytes / 1e6).toFixed(0), (peakBytes / 1e6).toFixed(0)]),
  );
}

export interface Target {
  what: string;
  figure: number;
  atMost: number;
  unit: string;
}

export function targetsTable(targets: readonly Target[]): string {
  return textTable(
    ['Target', 'At most', 'Measured', 'Verdict'],
    targets.map(({what, figure, atMost, unit}) => {
      const digits = unit === 'MB' ? 0 : 2;
      const text = (value: number) => `${value.toFixed(digits)} ${unit}`.trim();
      return [what, text(atMost), text(figure), figure <= atMost ? 'met' : 'MISSED'];
    }),
  );
}
