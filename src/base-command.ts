/** What all commands share: settings, progress, results, errors, signals. The process is touched here and in bin/ only. */
import {stripVTControlCharacters} from 'node:util';
import {Command} from '@oclif/core';
import {
  type AllSettings,
  filesNamedIn,
  mergeValues,
  type Need,
  type RecoverySettings,
  resolveSettings,
  type SettingsSource,
  secretNames,
  type VariableName,
} from './lib/config.ts';
import {BackupError} from './lib/errors.ts';
import {ping} from './lib/heartbeat.ts';
import type {Observer, Step} from './lib/observer.ts';
import type {Runtime} from './lib/operations/runtime.ts';
import {maskerFor, Secret} from './lib/secret.ts';
import {SecretFiles} from './lib/secret-files.ts';
import {keepResult, outputFailureIsTold} from './output.ts';
import {askPassphrase} from './ui/ask-passphrase.ts';
import {errorDocument, errorText} from './ui/error-text.ts';
import {printableLines} from './ui/format.ts';
import {ProgressView} from './ui/progress.ts';
import {isTraced, Trace} from './ui/trace.ts';

/** How long after a signal another is the same one, in milliseconds: faster than anybody presses Ctrl-C again. */
const echoMs = 300;

/** Flags that stand for an environment variable. */
export type VariableFlags = Partial<Record<VariableName, string | undefined>>;

export abstract class BaseCommand extends Command {
  static override enableJsonFlag = true;

  readonly #abort = new AbortController();
  readonly #secretFiles = new SecretFiles();
  #mask = maskerFor([]);
  #view: ProgressView | undefined;
  #trace: Trace | undefined;
  #heartbeat: Secret | undefined;
  #isFinished = false;
  #interruptedMs = 0;

  readonly #onSigint = () => this.#interrupt('SIGINT');
  readonly #onSigterm = () => this.#interrupt('SIGTERM');

  protected get signal(): AbortSignal {
    return this.#abort.signal;
  }

  override async init(): Promise<void> {
    await super.init();
    // `on`, not `once`: execa's signal-exit ends the process when it holds the last listener.
    process.on('SIGINT', this.#onSigint);
    process.on('SIGTERM', this.#onSigterm);
    // The terminal was closed: what is half-done must go all the same.
    process.on('SIGHUP', this.#onSigterm);
    await this.#secretFiles.read(filesNamedIn(process.env), this.signal);
    this.#learnSecrets({});
    if (!isTraced(process.env.DEBUG)) return;
    this.#trace = new Trace(
      (text) => process.stderr.write(text),
      (text) => this.#mask(text),
    );
    // Not the arguments: a --target may hold a password.
    const {version, platform, arch} = this.config;
    this.#trace.line(`${this.id} of ${version}, Node.js ${process.versions.node}, ${platform} ${arch}`);
  }

  #interrupt(name: 'SIGINT' | 'SIGTERM'): void {
    // The result was told, and the exit code must be that of the result.
    if (this.#isFinished && process.stdout.writableLength === 0) return;
    // Once, and told twice: npm passes on the Ctrl-C that the terminal has sent to this process as well; a closed terminal ends both.
    if (this.signal.aborted && performance.now() - this.#interruptedMs < echoMs) return;
    // Twice: the person wants out, whatever is left behind. By the signal itself: `process.exit` may wait (src/main.ts).
    if (this.signal.aborted || this.#isFinished) {
      process.removeAllListeners(name);
      process.kill(process.pid, name);
    }
    this.#interruptedMs = performance.now();
    this.#abort.abort(
      new BackupError(name === 'SIGINT' ? 'Interrupted' : 'Terminated', {
        code: 'INTERRUPTED',
        kind: name === 'SIGINT' ? 'interrupted' : 'terminated',
        reason: `${name} was received; what was under way has been undone`,
      }),
    );
  }

  #source(flags: VariableFlags): SettingsSource {
    return {
      flags: given(flags),
      environment: process.env,
      readFile: (file) => this.#secretFiles.contents(file),
    };
  }

  #learnSecrets(flags: VariableFlags): void {
    const {values} = mergeValues(this.#source(flags));
    const secrets = secretNames.flatMap((name) => values[name] ?? []);
    const passwords = secrets.flatMap((text) => /:\/\/[^:@/]*:(.*)@/s.exec(text)?.[1] ?? []);
    const keys = values.PHI_ENCRYPTION_KEYS_PREVIOUS?.split(',').map((key) => key.trim()) ?? [];
    this.#mask = maskerFor([...secrets, ...passwords, ...passwords.map(decoded), ...keys]);
  }

  /** Reads a file that a flag names, for `settings`. */
  protected async readSecretFile(file: string | undefined): Promise<void> {
    if (file) await this.#secretFiles.read([file], this.signal);
  }

  /** The settings that a command needs, from its flags and the environment; files of `files` were read before. */
  protected settings<N extends Need>(needs: readonly N[], flags: VariableFlags = {}, files: VariableFlags = {}) {
    this.#learnSecrets(flags);
    // Before a setting that is wrong: that is a failure to be reported, too.
    this.#heartbeat = this.#heartbeatOf(flags);
    return resolveSettings(needs, {...this.#source(flags), files: given(files)});
  }

  /** The recovery key with its passphrase, which is asked for when it needs one and none is set. */
  protected async recoveryKey({keys, recovery}: AllSettings['readingKeys']): Promise<RecoverySettings | undefined> {
    if (recovery && !keys) {
      this.warning(
        'the recovery key alone proves that a backup is whole, not who made it (docs/FORMAT.md, "Recovery key").',
      );
    }
    if (!recovery || recovery.passphrase || !/ENCRYPTED/.test(recovery.pem.reveal())) return recovery;
    const terminal = {input: process.stdin, output: process.stderr};
    const text = await askPassphrase('Passphrase of the recovery key: ', terminal, this.signal);
    return text === undefined ? recovery : {...recovery, passphrase: new Secret(text)};
  }

  /** Runs an operation and shows its steps on stderr. */
  protected async observe<T>(steps: readonly Step[], work: (runtime: Runtime) => Promise<T>): Promise<T> {
    const view = new ProgressView(steps, process.stderr, (text) => this.#mask(text), {
      // Lines between those of a tree would tear it apart; a terminal that says it has no columns has no room for one.
      isTree: process.stderr.isTTY && process.stderr.columns > 0 && !this.#trace,
    });
    this.#view = view;
    try {
      const result = await work(this.runtime(view.observer));
      await view.close('finished');
      return result;
    } catch (error) {
      await view.close('failed');
      throw error;
    }
  }

  /** Waits until the terminal is free for a question. */
  protected async idle(): Promise<void> {
    await this.#view?.idle();
  }

  protected runtime(observer: Observer = () => undefined): Runtime {
    return {
      environment: process.env,
      toolVersion: this.config.version,
      now: () => new Date(),
      observer: this.#trace?.wrap(observer) ?? observer,
      signal: this.signal,
    };
  }

  /** The heartbeat monitor of a command that has --ping, if its URL is one. */
  #heartbeatOf(flags: VariableFlags): Secret | undefined {
    // A command without flags has no such object.
    if (!this.ctor.flags?.ping) return undefined;
    try {
      return resolveSettings(['pingUrl'], this.#source(flags)).pingUrl;
    } catch {
      return undefined;
    }
  }

  async #beat(url: Secret, outcome: 'success' | 'failure', body: string): Promise<void> {
    const problem = await ping(url, outcome, this.#mask(stripVTControlCharacters(body)));
    if (problem) this.warning(`--ping: ${problem}`);
  }

  /**
   * Runs work and reports its result to a heartbeat monitor, if there is one; `catch` reports errors. What cannot be reported is a
   * warning.
   * @param summary the body of the report
   * @param isGood whether a result counts as success
   */
  protected async withHeartbeat<T>(
    url: Secret | undefined,
    summary: (result: T) => string,
    isGood: (result: T) => boolean,
    work: () => Promise<T>,
  ): Promise<T> {
    const result = await work();
    if (url) await this.#beat(url, isGood(result) ? 'success' : 'failure', summary(result));
    return result;
  }

  /** Ends with an exit code that says something about the result, which is printed with `--json` too. */
  protected finishWith(result: unknown, exitCode: number): never {
    this.#trace?.line(`ends with exit code ${exitCode}`);
    if (this.jsonEnabled()) this.logJson(result);
    this.exit(exitCode);
  }

  /** The result, when it passes; `--json` prints one that does not, too, with the error beside it in the same document. */
  protected required<T extends object>(result: T, requirement: (result: T) => void): T {
    try {
      requirement(result);
      return result;
    } catch (error) {
      if (!this.jsonEnabled()) throw error;
      const document = errorDocument(error, this.#mask);
      return this.finishWith({...result, ...document}, document.error.exitCode);
    }
  }

  /** JSON with the control characters escaped that JSON leaves as they are, and a terminal would obey. */
  protected override logJson(json: unknown): void {
    const text = JSON.stringify(json, undefined, 2);
    const escaped = text.replace(/[\u007f-\u009f]/g, (found) => `\\u00${found.charCodeAt(0).toString(16)}`);
    process.stdout.write(`${this.#mask(escaped)}\n`);
  }

  /** Prints a result for people on stdout; with `--json`, oclif prints what `run` returns instead. */
  protected report(text: string): void {
    const masked = this.#mask(text);
    keepResult(masked);
    this.log(masked);
  }

  protected warning(text: string): void {
    process.stderr.write(`Warning: ${printableLines(this.#mask(text))}\n`);
  }

  override async catch(error: Error): Promise<void> {
    // `this.exit()`: everything was said already.
    if ('code' in error && error.code === 'EEXIT') throw error;
    const document = errorDocument(error, this.#mask);
    const {exitCode, code} = document.error;
    this.#trace?.line(`ends with exit code ${exitCode}, ${code}`);
    const text = errorText(error, this.#mask);
    if (this.jsonEnabled()) {
      keepResult(text.trimEnd());
      this.logJson(document);
    } else {
      if (code === 'OUTPUT_FAILED') outputFailureIsTold();
      process.stderr.write(text);
    }
    const heartbeat = this.#heartbeat ?? this.#heartbeatOf({});
    if (heartbeat) await this.#beat(heartbeat, 'failure', text);
    this.exit(exitCode);
  }

  override async finally(error: Error | undefined): Promise<void> {
    if (!error) this.#trace?.line('ends with exit code 0');
    // The listeners stay: without them a signal would end the process, which may live on for a moment.
    this.#isFinished = true;
    await super.finally(error);
  }
}

function given(flags: VariableFlags): Partial<Record<VariableName, string>> {
  const entries = Object.entries(flags).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(entries);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
