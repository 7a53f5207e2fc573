/**
 * `npm run bench`: backup and restore next to the pipelines that one would write by hand, and files next to rclone, in one run
 * and in turn; memory; compression levels; and the project's targets with their figures. docs/PERFORMANCE.md says how to read it.
 */
import {readFileSync} from 'node:fs';
import os from 'node:os';
import {ensurePrograms} from '../test/support/packages.ts';
import {startServers} from '../test/support/sandbox.ts';
import {ServerDirectory} from '../test/support/server-directory.ts';
import {measureCodecs} from './bench/codecs.ts';
import {
  backupToDirectory,
  type Contender,
  dumpContenders,
  emptyStore,
  type LomaBackup,
  lomaBackup,
  restoreContender,
  restoreContenders,
} from './bench/contenders.ts';
import {benchFiles} from './bench/files.ts';
import {type BenchOptions, readOptions, usage} from './bench/options.ts';
import {codecTable, type MemoryFigure, memoryTable, type Target, targetsTable, timesTable} from './bench/report.ts';
import {measureInTurn, median, medianRatio, peakMemory} from './bench/rounds.ts';
import {prepare, type Workbench} from './bench/workbench.ts';
import {runScript, type Script} from './shared/script.ts';

const helpRuns = 10;

await runScript(async (script) => {
  const options = readOptions(process.argv.slice(2));
  if (options === 'help') {
    console.log(usage);
    return;
  }
  const targets = [
    ...(options.only === 'files' ? [] : await benchDatabase(options, script)),
    ...(options.only === 'database' ? [] : await benchFiles(options, script)),
  ];
  section('Targets', targetsTable(targets));
  if (!options.large) console.log('Memory with a larger database and more files: not measured (--large).');
});

async function benchDatabase(options: BenchOptions, script: Script): Promise<Target[]> {
  await ensurePrograms(['age', 'pigz', 'zstd']);
  const {postgres, objects, stop} = await startServers();
  script.defer(stop);
  const directory = await ServerDirectory.create('bench');
  script.defer(() => directory.remove());
  note(`Filling a database with ${options.patients} patients.`);
  const place = await prepare(postgres, directory.path, options.patients, script);
  const cliOf = lomaBackup(place, script);
  console.log(machineText(place, options));

  const dumps = dumpContenders(place, cliOf, script, objects);
  const dumpTimes = await measureInTurn(dumps, options.rounds, progress);
  section('Backup: wall time', timesTable(dumps, dumpTimes, 'null', place.plainBytes));
  console.log(
    'Into a file:// store, unless it says otherwise; a local S3 server shares the processors. Every pg_dump has',
  );
  console.log('the same flags. The last column is the median of the ratios within each round.');

  await cliOf(['backup', '--no-prune']);
  const restores = restoreContenders(place, cliOf);
  const restoreTimes = await measureInTurn(restores, options.rounds, progress);
  section('Restore into a fresh database: wall time', timesTable(restores, restoreTimes, 'psql', place.plainBytes));
  console.log('restore is printed as a whole: it also decrypts, decompresses, counts every row, and runs ANALYZE.');

  const memory = await measureMemory(place, cliOf);
  const largeMemory = options.large ? await measureLarge(place, options, script) : [];
  section('Peak memory of the whole process tree, without the server', memoryTable([...memory, ...largeMemory]));
  console.log('Proportional set size (PSS), looked at every 50 ms, each in a run of its own.');

  section('Compression levels, blocks of 1 MiB of this dump, one core', codecTable(measureCodecs(place.plainDump)));

  const help = await measureHelp(cliOf);
  const ratio = (what: string, id: string, other: string, atMost: number, times = dumpTimes): Target => ({
    what,
    figure: medianRatio(times, id, other),
    atMost,
    unit: '',
  });
  return [
    ratio('zstd / (pg_dump | zstd -1 | age)', 'zstd', 'zstd-age', 1),
    ratio('zstd / (pg_dump >/dev/null)', 'zstd', 'null', 1.4),
    ratio('gzip / (pg_dump | pigz | age)', 'gzip', 'pigz-age', 0.8),
    ratio('restore / (psql -1)', 'restore', 'psql', 1.15, restoreTimes),
    ...memory.map(({what, peakBytes}) => ({what: `memory: ${what}`, figure: peakBytes / 1e6, atMost: 300, unit: 'MB'})),
    ...largeMemory.flatMap(({what, peakBytes}, index) => [
      {what: `memory, dump four times as large: ${what}`, figure: peakBytes / 1e6, atMost: 300, unit: 'MB'},
      {
        what: `memory, four times as large / as is: ${what}`,
        figure: peakBytes / (memory[index]?.peakBytes ?? Number.NaN),
        // Garbage collection alone moves the peak by a fifth.
        atMost: 1.25,
        unit: '',
      },
    ]),
    {what: `loma-backup --help, median of ${helpRuns}`, figure: help, atMost: 0.25, unit: 's'},
  ];
}

async function measureMemory(place: Workbench, cliOf: LomaBackup): Promise<MemoryFigure[]> {
  const figures: MemoryFigure[] = [];
  const measure = async (what: string, contender: Contender) => {
    const peakBytes = await peakMemory(contender);
    figures.push({what, dumpBytes: place.plainBytes, peakBytes});
    note(`${what}: ${(peakBytes / 1e6).toFixed(0)} MB`);
  };
  await emptyStore(place);
  await measure('backup --compression zstd', backupToDirectory(place, cliOf, 'zstd'));
  // What the last one stores is restored.
  await measure('backup --compression gzip', {...backupToDirectory(place, cliOf, 'gzip'), after: async () => {}});
  await measure('restore', restoreContender(place, cliOf));
  await emptyStore(place);
  return figures;
}

async function measureLarge(place: Workbench, {patients}: BenchOptions, script: Script): Promise<MemoryFigure[]> {
  note(`Filling a database with ${4 * patients} patients.`);
  const directory = await ServerDirectory.create('bench-large');
  script.defer(() => directory.remove());
  const large = await prepare(place.postgres, directory.path, 4 * patients, script);
  const figures = await measureMemory(large, lomaBackup(large, script));
  await large.source.drop();
  return figures;
}

async function measureHelp(cliOf: LomaBackup): Promise<number> {
  const seconds: number[] = [];
  for (let index = 0; index < helpRuns; index += 1) {
    const start = performance.now();
    await cliOf(['--help']);
    seconds.push((performance.now() - start) / 1000);
  }
  return median(seconds);
}

function machineText(place: Workbench, {patients, rounds}: BenchOptions): string {
  const load = readFileSync('/proc/loadavg', 'utf8').split(' ')[0];
  return [
    `${os.cpus().length} cores (${os.cpus()[0]?.model.trim()}), PostgreSQL ${place.postgres.version}, Node.js ${process.versions.node}`,
    `${patients} patients: a plain dump of ${(place.plainBytes / 1e6).toFixed(0)} MB; ${rounds} rounds; load average at the start ${load}`,
  ].join('\n');
}

function progress(title: string, seconds: number): void {
  note(`${seconds.toFixed(2)} s  ${title}`);
}

function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

function section(title: string, text: string): void {
  console.log(`\n${title}\n\n${text}`);
}
