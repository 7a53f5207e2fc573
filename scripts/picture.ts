/**
 * `npm run docs:picture`: runs the demo in a terminal, and draws what the command line showed as docs/session.svg. The terminal is
 * `script` of util-linux; what it would show is read from xterm.js, which understands what progress lines do to a screen.
 */
import {spawn} from 'node:child_process';
import {writeFile} from 'node:fs/promises';
import path from 'node:path';
import xterm from '@xterm/headless';
import {projectDirectory} from './shared/cli.ts';
import {cellsOf, drawSvg, type Line} from './shared/terminal-svg.ts';

const columns = 108;
const target = path.join(projectDirectory, 'docs', 'session.svg');

const terminal = new xterm.Terminal({cols: columns, rows: 50, scrollback: 2000, allowProposedApi: true});
const command = `stty cols ${columns} rows 50; exec "${process.execPath}" scripts/demo.ts`;
const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
  cwd: projectDirectory,
  env: {...process.env, TERM: 'xterm-256color', COLORTERM: '', FORCE_COLOR: '1', NO_COLOR: undefined, CI: undefined},
  stdio: ['ignore', 'pipe', 'inherit'],
});
child.stdout.on('data', (bytes: Buffer) => {
  process.stdout.write(bytes);
  terminal.write(bytes);
});
const exitCode = await new Promise<number | null>((resolve) => child.once('close', resolve));
if (exitCode !== 0) throw new Error(`The demo failed (${exitCode}): no picture of that.`);
await new Promise<void>((resolve) => terminal.write('', resolve));

const buffer = terminal.buffer.active;
const all: Line[] = Array.from({length: buffer.length}, (_, row) => cellsOf(buffer.getLine(row), columns));
const textOf = (line: Line) => line.map(({text}) => text).join('');
const first = all.findIndex((line) => textOf(line).startsWith('$ loma-backup backup'));
const end = all.findIndex((line) => textOf(line).startsWith('Both databases, table by table'));
if (first < 0 || end <= first) throw new Error('The demo has shown something else than the picture is made of.');
const shown = all.slice(first, end);
while (shown.length > 0 && textOf(shown.at(-1) ?? []).trim() === '') shown.pop();
await writeFile(target, drawSvg(shown, columns));
console.log(`\nDrawn: ${path.relative(projectDirectory, target)}, ${shown.length} lines.`);
