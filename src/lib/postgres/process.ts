/**
 * Child processes: the one home of execa. Three of its traps are handled here and nowhere else: a pipeline over
 * `child.stdout` resolves although the child failed (so `readable()`), the default buffer ends a stream at 100 MB, and
 * arguments appear in its error messages (so nothing secret is an argument, and errors are translated by callers).
 */

import {spawn, spawnSync} from 'node:child_process';
import {closeSync, constants, mkdtempSync, openSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import type {Readable, Writable} from 'node:stream';
import {ExecaError, execa, type ResultPromise} from 'execa';
import type {BlockPool} from '../streams/block-pool.ts';
import {BlockReader} from '../streams/block-reader.ts';

/** What is left of a child that ended badly. */
export interface ProcessFailure {
  /** The last lines of its standard error, without values of rows. */
  stderr: string;
  exitCode: number | undefined;
  signal: string | undefined;
  /** Set if the program could not be started. */
  startError: string | undefined;
}

/** The facts of a failed child, if `error` is one. */
export function processFailure(error: unknown): ProcessFailure | undefined {
  if (!(error instanceof ExecaError)) return undefined;
  return {
    // Before it is cut: the beginning of a message says what may be shown of the rest.
    stderr: withoutValues(textOf(error.stderr)).trim().split('\n').slice(-12).join('\n'),
    exitCode: error.exitCode,
    signal: error.signal,
    startError: error.exitCode === undefined && error.signal === undefined ? error.originalMessage : undefined,
  };
}

/** What was kept of an output, whatever it was asked for as. */
function textOf(output: unknown): string {
  return output instanceof Uint8Array ? Buffer.from(output).toString() : String(output ?? '');
}

/** One line that says how a child ended. */
export function describeFailure(failure: ProcessFailure): string {
  if (failure.startError) return failure.startError;
  const ending = failure.signal ? `it was ended by ${failure.signal}` : `exit code ${failure.exitCode}`;
  return failure.stderr || ending;
}

/** Marks text of ours that an error message quotes: it is kept. */
export const quotedMark = 'loma-backup:';

/** What a server's messages begin with, and the parts of one. */
const englishWords = 'ERROR|FATAL|PANIC|WARNING|NOTICE|INFO|LOG|DETAIL|HINT|CONTEXT|QUERY|STATEMENT';

/** What a message of PostgreSQL's programs begins with; lines that begin otherwise go on with what is before them. */
const messageStart = new RegExp(
  String.raw`^(?=(?:.*: )?(?:${englishWords}|LINE \d+): |psql: |pg_dump: |server closed |connection to server )`,
  'm',
);

/**
 * Takes out of PostgreSQL's messages what they quote of rows, which is PHI: details, contexts and statements whole, and
 * values in messages (`invalid input syntax for type integer: "…"`). A value may have several lines, and quotes in it.
 */
export function withoutValues(text: string): string {
  if (foreignMessage.test(text)) return beginningsOnly(text);
  const quoted = new RegExp(`(: |value |time zone )"(?!${quotedMark})(?:[^]*"|[^]*$)`);
  return text
    .split(messageStart)
    .filter((message) => !/^(.*: )?(DETAIL|CONTEXT|QUERY|STATEMENT|LINE \d+|HINT): /.test(message))
    .map((message) => message.replace(quoted, (_, before) => `${before}"…"`))
    .join('')
    .trimEnd();
}

/** Before a message of the server: psql's or pg_dump's own words. */
const messagePrefix = String.raw`(?:psql:[^\n]*?:\d+: |pg_dump: (?:[^\n]*?: )?)`;
/** Two spaces follow the severity in every language (libpq, fe-protocol3.c), and libpq's own words are English here. */
const foreignSeverity = String.raw`(?!(?:${englishWords}|DEBUG|LINE):)\p{L}+:  `;
/** One of a server that speaks another language (`lc_messages`), at the beginning of a text or behind a prefix. */
const foreignMessage = new RegExp(`^${foreignSeverity}|(?:^|\n)${messagePrefix}${foreignSeverity}`, 'u');

/**
 * Of messages in a language in which a value cannot be told from other words: each up to its first quote, or what stands behind a colon.
 * A line without one of the prefixes goes on with a value, or is a detail.
 */
function beginningsOnly(text: string): string {
  const severity = new RegExp(`^${foreignSeverity}`, 'u');
  const beginning = new RegExp(
    `^(${messagePrefix}${foreignSeverity}|${foreignSeverity}|${messagePrefix}|psql: |connection to server |server closed )(.*)$`,
    'u',
  );
  return text
    .split('\n')
    .flatMap((line, index) => {
      const [, before, message = ''] = beginning.exec(line) ?? [];
      if (before === undefined || (index > 0 && severity.test(line))) return [];
      const shown = message.includes(quotedMark)
        ? message
        : (/^[^"'«»‹›„“”‚‘’「」『』《》`:]*/.exec(message)?.[0] ?? '');
      return [`${before}${shown}${shown === message ? '' : '…'}`];
    })
    .join('\n');
}

export interface ExecuteOptions {
  environment?: Readonly<Record<string, string>>;
  input?: string;
  signal?: AbortSignal | undefined;
  cwd?: string;
  /** The account to run as, for programs that refuse to run as root. */
  account?: Account | undefined;
}

export interface Account {
  uid: number;
  gid: number;
}

function common(options: {environment?: Readonly<Record<string, string>>; signal?: AbortSignal | undefined}) {
  return {
    env: options.environment ?? {},
    extendEnv: false,
    forceKillAfterDelay: 5000,
    // Ctrl-C on a terminal is for this process alone: it decides how its children end.
    detached: true,
    ...(options.signal ? {cancelSignal: options.signal} : {}),
  } as const;
}

/** Runs a program to its end and gives its standard output. Rejects if it fails (see `processFailure`). */
export async function execute(file: string, args: readonly string[], options: ExecuteOptions): Promise<string> {
  const {stdout} = await execa(file, args, {
    ...common(options),
    ...(options.input === undefined ? {stdin: 'ignore' as const} : {input: options.input}),
    ...(options.cwd ? {cwd: options.cwd} : {}),
    ...(options.account ?? {}),
  });
  return stdout;
}

export interface StreamOptions {
  environment: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
}

/**
 * Starts a shell script that runs when this process ends, however it ends, or when it is told to: it waits for the end
 * of its standard input, which this process holds open.
 * @returns a function that lets it run now, and waits for it
 */
export function atEndOfProcess(script: string, args: readonly string[], account?: Account): () => Promise<void> {
  const child = spawn('sh', ['-c', `cat >/dev/null; ${script}`, 'sh', ...args], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    env: {PATH: '/usr/sbin:/usr/bin:/sbin:/bin'},
    cwd: '/',
    ...(account ?? {}),
  });
  child.unref();
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  return async () => {
    child.ref();
    child.stdin.end();
    await ended;
  };
}

/** A program that stays and is asked something now and then. It ends when this process does: its input ends then. */
export interface Companion {
  /** Writes to its standard input, and gives the next line of its output. Rejects if it has ended. */
  ask(input: string): Promise<string>;
  /** Ends it, and waits until it has gone. Never rejects. */
  stop(): Promise<void>;
}

/** Starts a program to talk to. */
export function talkTo(file: string, args: readonly string[], options: StreamOptions): Companion {
  const child = execa(file, args, {...common(options), stdin: 'pipe', buffer: {stdout: false}});
  // Writing to one that has just ended is not the failure to report: its end is.
  child.stdin.on('error', () => undefined);
  const lines = child.iterable()[Symbol.asyncIterator]();
  child.catch(() => undefined);
  return {
    async ask(input) {
      child.stdin.write(input);
      const line = await lines.next();
      if (!line.done) return String(line.value);
      await child;
      throw new Error('it ended without an answer');
    },
    async stop() {
      child.stdin.end();
      await child.catch(() => undefined);
    },
  };
}

/** A running program at one end of a pipeline. */
export interface ProcessStream<S> {
  stream: S;
  /** Ends the program if it still runs, and waits until it has gone. Never rejects. */
  stop(): Promise<void>;
}

/** A running program whose output is read. */
export interface ReadProcess extends ProcessStream<Readable> {
  /** Its standard error, when it has ended well; empty when not: then it is in the error. Never rejects. */
  remarks: Promise<string>;
}

function remarksOf(child: ResultPromise): Promise<string> {
  return child.then(
    ({stderr}) => textOf(stderr),
    () => '',
  );
}

function stopper(child: ResultPromise): () => Promise<void> {
  return async () => {
    child.kill('SIGTERM');
    await child.catch(() => undefined);
  };
}

/**
 * Ends the program when its stream is destroyed: execa closes the stream when the program has ended, and one that waits
 * (for a lock, for input) would hold up the failure of everything else.
 */
function killedWith(stream: Writable, child: ResultPromise): Writable {
  const destroy = stream._destroy.bind(stream);
  stream._destroy = (error, done) => {
    child.kill('SIGTERM');
    destroy(error, done);
  };
  return stream;
}

/** The two ends of a pipe in the kernel. Whoever gets them closes them. */
export interface PipeEnds {
  readFd: number;
  writeFd: number;
}

/**
 * Makes a pipe that can be read into one buffer again and again. Node.js makes pipes for child processes that can't be, and no
 * others; so it is a named pipe, whose name goes at once: nothing of what flows through it is ever on a disk.
 * @returns undefined where that can't be done (no `mkfifo`, a temporary directory that is full or read-only)
 */
export function openPipe(parent = tmpdir()): PipeEnds | undefined {
  let folder: string | undefined;
  try {
    folder = mkdtempSync(path.join(parent, 'loma-backup-pipe-'));
    const name = path.join(folder, 'pipe');
    if (spawnSync('mkfifo', ['-m', '600', name], {stdio: 'ignore'}).status !== 0) return undefined;
    // In this order neither waits for the other; the program at the other end gets one that blocks, as it expects.
    const readFd = openSync(name, constants.O_RDONLY | constants.O_NONBLOCK);
    return {readFd, writeFd: openSync(name, constants.O_WRONLY)};
  } catch {
    return undefined;
  } finally {
    if (folder) rmSync(folder, {recursive: true, force: true});
  }
}

export interface ReadOptions extends StreamOptions {
  /** Where the blocks come from that are read. */
  pool?: BlockPool | undefined;
}

/**
 * Starts a program and reads its standard output, in blocks. The stream fails, before its end, if the program fails; it is
 * ended when the stream is destroyed.
 */
export function readFrom(file: string, args: readonly string[], options: ReadOptions): ReadProcess {
  const pipe = openPipe();
  const child = execa(file, args, {
    ...common(options),
    stdin: 'ignore',
    // execa's types know no other descriptors than small ones.
    stdout: (pipe?.writeFd as 3 | undefined) ?? 'pipe',
    encoding: 'buffer',
    buffer: {stdout: false},
  });
  if (pipe) closeSync(pipe.writeFd);
  const stream = new BlockReader({
    source: pipe?.readFd ?? (child.stdout as unknown as Readable),
    writer: child,
    abandon: () => child.kill('SIGTERM'),
    pool: options.pool,
  });
  return {stream, stop: stopper(child), remarks: remarksOf(child)};
}

/** A running program that is written to, and that says something. */
export interface WriteProcess extends ProcessStream<Writable> {
  /**
   * Is kept, with the rest of the line, when the program prints a line of this word and what a space sets apart from it; broken with
   * its failure when it ends without. Ask before it can have printed it.
   */
  printed(word: string): Promise<string>;
}

/** Starts a program and writes to its standard input. The stream finishes when the program has ended well. */
export function writeTo(file: string, args: readonly string[], options: StreamOptions): WriteProcess {
  const child = execa(file, args, {...common(options), encoding: 'buffer', buffer: {stdout: false}});
  const output = child.stdout as unknown as Readable;
  // Whether somebody listens or not: a full pipe would hold the program up.
  output.resume();
  const printed = (word: string) =>
    new Promise<string>((resolve, reject) => {
      let unfinished = '';
      output.on('data', (bytes: Buffer) => {
        const lines = (unfinished + bytes.toString('latin1')).split('\n');
        // Of a line that is too long to be looked for, its beginning is enough.
        unfinished = (lines.pop() ?? '').slice(0, 1000);
        const found = lines.find((line) => line === word || line.startsWith(`${word} `));
        if (found !== undefined) resolve(found.slice(word.length + 1));
      });
      child.then(() => reject(new Error(`${path.basename(file)} ended without having said ${word}`)), reject);
    });
  return {stream: killedWith(child.writable(), child), stop: stopper(child), printed};
}
