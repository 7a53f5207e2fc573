import {randomBytes} from 'node:crypto';
import {type Backup, isRestorable} from '../catalog/backups.ts';
import {assessHealth, defaultHealthPolicy, type Finding} from '../catalog/health.ts';
import {verificationKey} from '../catalog/key-names.ts';
import {defaultRetention} from '../catalog/retention.ts';
import {sealVerification, type Verification, type VerificationStep} from '../catalog/verification.ts';
import type {CompressionName, KeySettings, StoreSettings} from '../config.ts';
import {totals} from '../dump/contents.ts';
import {allKeys, type Keyring, keyring} from '../encrypt/keys.ts';
import {asBackupError, BackupError, interruption} from '../errors.ts';
import {describeRights, lookAtRights} from '../load/rights.ts';
import type {Step} from '../observer.ts';
import type {Connection} from '../postgres/connection.ts';
import {serverFacts} from '../postgres/query.ts';
import {openStores, type Stores} from '../upload/open-store.ts';
import {type ObjectStore, readSmall} from '../upload/store.ts';
import {backup} from './backup.ts';
import {type BackupChoice, findBackup, readCatalog, verificationSealingKey} from './catalog.ts';
import {checkOpenable, type OpenableBackup, readWhole} from './open-backup.ts';
import type {Comparison} from './proof.ts';
import {type Runtime, sessionOf} from './runtime.ts';
import {type ScratchPlace, TrialRestore} from './trial-restore.ts';

export interface VerifySettings {
  store: StoreSettings;
  keys: KeySettings;
  optionalDatabase: Connection | undefined;
  compression: CompressionName;
  choice: BackupChoice;
  /** Take a backup first, and verify that one. */
  withBackup: boolean;
  /** Where the trial restore goes. */
  scratch: ScratchPlace | {on: 'nothing'};
  /** Leave out what only a superuser may restore; it is not proved. */
  managed?: boolean;
  /** As of a restore. */
  searchPath?: string | undefined;
  /** How ages are written in notes. */
  formatAge: (ms: number) => string;
}

export interface VerifyResult {
  /** Undefined when none was found. */
  key: string | undefined;
  startedAt: Date;
  durationMs: number;
  steps: VerificationStep[];
  total: number;
  passed: number;
  failed: number;
  skipped: number;
  /** Restored, and equal to what the manifest promises. */
  isProved: boolean;
  /** What of the restored copy was compared, and how; undefined when it is not proved. */
  comparison: Comparison | undefined;
  /** How long the restore took. */
  recoveryMs: number | undefined;
  toolVersion: string;
  /** Everything in the bucket, for the report. */
  backups: Backup[];
  warnings: string[];
}

export const verifySteps: readonly Step[] = [
  {id: 'store', title: 'R2 configuration'},
  {id: 'database', title: 'Database connection'},
  {id: 'key', title: 'Encryption key'},
  {id: 'catalog', title: 'Backup listing'},
  {id: 'backup', title: 'Backup creation'},
  {id: 'integrity', title: 'Integrity of the stored backup'},
  {id: 'restore', title: 'Restore and proof'},
];

/** Why a step was not run. */
class Skipped extends Error {}

/**
 * Proves that a backup can be restored. Every step is run that can be; each says what it found.
 * @throws BackupError only for an interruption: everything else is a failed step of the result
 */
export async function verify(settings: VerifySettings, runtime: Runtime): Promise<VerifyResult> {
  using stores = await openStores(settings.store);
  return await new Verifier(settings, runtime, stores).run();
}

/** The steps of one verification, and what they hand on to each other. */
class Verifier {
  readonly #settings: VerifySettings;
  readonly #runtime: Runtime;
  readonly #stores: Stores;
  readonly #keys: Keyring;
  readonly #startedAt: Date;
  readonly #steps: VerificationStep[] = [];
  readonly #warnings: string[] = [];
  #backups: Backup[] = [];
  readonly #trial: TrialRestore;
  #choice: BackupChoice;
  #found: Backup | undefined;
  #openable: OpenableBackup | undefined;
  /** The backup itself was found to be bad, and not the key at hand or the server that it was tried on. */
  #isBad = false;

  constructor(settings: VerifySettings, runtime: Runtime, stores: Stores) {
    this.#settings = settings;
    this.#runtime = runtime;
    this.#stores = stores;
    this.#keys = keyring(settings.keys.current, settings.keys.previous);
    this.#startedAt = runtime.now();
    this.#choice = settings.choice;
    this.#trial = new TrialRestore(
      {
        store: stores.backups,
        keys: this.#keys,
        isManaged: settings.managed ?? false,
        searchPath: settings.searchPath,
        warn: (text) => this.#warn(text),
      },
      runtime,
    );
  }

  async run(): Promise<VerifyResult> {
    const started = performance.now();
    await this.#step('store', () => this.#checkStores());
    await this.#step('database', () => this.#checkDatabase());
    await this.#step('key', () => this.#checkKey());
    await this.#step('catalog', () => this.#checkCatalog());
    await this.#step('backup', () => this.#takeBackup());
    await this.#step('integrity', () => this.#checkIntegrity());
    await this.#step('restore', () => this.#checkRestore());
    await this.#store();
    const count = (status: VerificationStep['status']) => this.#steps.filter((step) => step.status === status).length;
    return {
      key: this.#found?.key,
      startedAt: this.#startedAt,
      durationMs: Math.round(performance.now() - started),
      steps: this.#steps,
      total: this.#steps.length,
      passed: count('passed'),
      failed: count('failed'),
      skipped: count('skipped'),
      isProved: this.#isProved(),
      comparison: this.#trial.comparison,
      recoveryMs: this.#trial.recoveryMs,
      toolVersion: this.#runtime.toolVersion,
      backups: this.#backups,
      warnings: this.#warnings,
    };
  }

  #status(id: string): VerificationStep['status'] | undefined {
    return this.#steps.find((step) => step.id === id)?.status;
  }

  #isProved(): boolean {
    return this.#status('integrity') === 'passed' && this.#status('restore') === 'passed';
  }

  #warn(message: string): void {
    this.#warnings.push(message);
    this.#runtime.observer({type: 'warning', message});
  }

  async #step(id: string, work: () => Promise<string>): Promise<void> {
    const {observer, signal} = this.#runtime;
    const title = verifySteps.find((step) => step.id === id)?.title ?? id;
    const started = performance.now();
    const record = (status: VerificationStep['status'], note: string) => {
      this.#steps.push({id, title, status, note, durationMs: Math.round(performance.now() - started)});
      observer({type: status === 'passed' ? 'finished' : status, step: id, note});
    };
    observer({type: 'started', step: id});
    try {
      record('passed', await work());
    } catch (error) {
      const interrupted = interruption(signal);
      if (interrupted) throw interrupted;
      if (error instanceof Skipped) {
        record('skipped', error.message);
        return;
      }
      const failure = asBackupError(error);
      if (this.#found && isDamage(failure, this.#found)) this.#isBad = true;
      const {message, reason, hint} = failure;
      record('failed', [message, reason, hint].filter(Boolean).join('. '));
    }
  }

  async #checkStores(): Promise<string> {
    await probe(this.#stores.backups);
    await probe(this.#stores.files);
    return `wrote, read back and deleted a probe in ${this.#stores.backups.description} and in ${this.#stores.files.description}`;
  }

  async #checkDatabase(): Promise<string> {
    const {optionalDatabase: connection} = this.#settings;
    if (!connection) throw new Skipped('DATABASE_URL is not set');
    const session = await sessionOf(connection, this.#runtime);
    const facts = await serverFacts(session);
    const rights = await lookAtRights(session);
    const problems = describeRights(rights);
    if (problems.length > 0) {
      throw new BackupError('The role cannot read everything', {
        code: 'POSTGRES_QUERY_FAILED',
        kind: 'postgres',
        reason: problems.join('; '),
      });
    }
    const size = `${(facts.sizeBytes / 1e6).toFixed(1)} MB`;
    return [
      `PostgreSQL ${facts.version}, database ${facts.database}, ${size}, every table can be read`,
      ...connection.warnings,
    ].join('; ');
  }

  async #checkKey(): Promise<string> {
    this.#backups = await readCatalog(this.#stores.backups, this.#keys, this.#runtime.signal);
    const keys = allKeys(this.#keys).map(({fingerprint}) => {
      const count = this.#backups.filter(({keyFingerprint}) => keyFingerprint === fingerprint).length;
      return `${fingerprint} opens ${count} of ${this.#backups.length} backups`;
    });
    const legacy = this.#backups.filter(({state}) => state === 'legacy').length;
    return [...keys, ...(legacy > 0 ? [`${legacy} of the older form do not name their key`] : [])].join('; ');
  }

  async #checkCatalog(): Promise<string> {
    if (this.#status('key') === 'failed') throw new Skipped('the backups bucket cannot be read');
    const findings = assessHealth(
      {
        backups: this.#backups,
        unfinishedUploads: [],
        keyFingerprints: undefined,
        formatAge: this.#settings.formatAge,
      },
      {...defaultHealthPolicy, retentionDays: defaultRetention.keepDays},
      this.#runtime.now(),
    ).filter(({id}) => id !== 'proof');
    if (!this.#backups.some(isRestorable) && !this.#settings.withBackup) {
      throw new BackupError('There is no complete backup', {
        code: 'BACKUP_NOT_FOUND',
        kind: 'storage',
        hint: 'Take one: loma-backup backup.',
      });
    }
    for (const finding of findings.filter(({isGood}) => !isGood)) this.#warn(finding.text);
    return [`${this.#backups.length} backups`, ...findings.map(describeFinding)].join('; ');
  }

  async #takeBackup(): Promise<string> {
    const {withBackup, optionalDatabase: database} = this.#settings;
    if (!withBackup) throw new Skipped('not asked for (--with-backup)');
    if (!database) throw new Skipped('DATABASE_URL is not set');
    const result = await backup(
      {
        ...this.#settings,
        database,
        label: 'verification',
        hold: false,
        excludeTableData: [],
        retention: defaultRetention,
        prune: false,
      },
      {...this.#runtime, observer: () => undefined},
    );
    for (const warning of result.warnings) this.#warn(warning);
    this.#choice = {by: 'key', key: result.key};
    this.#backups = await readCatalog(this.#stores.backups, this.#keys, this.#runtime.signal);
    return `${result.key}: ${result.tables} tables, ${result.rows} rows`;
  }

  async #checkIntegrity(): Promise<string> {
    if (this.#status('key') === 'failed') throw new Skipped('the backups bucket cannot be read');
    if (this.#status('backup') === 'failed') throw new Skipped('the backup to verify could not be taken');
    const store = this.#stores.backups;
    const {signal, observer} = this.#runtime;
    const found = await findBackup(store, this.#choice, this.#keys, (message) => this.#warn(message), {
      signal,
      catalog: this.#backups,
    });
    this.#found = found.backup;
    const openable = await checkOpenable(store, found, this.#keys);
    this.#openable = openable;
    const onBytes = (bytes: number) =>
      observer({type: 'progress', step: 'integrity', bytes, totalBytes: openable.backup.sizeBytes});
    const {contents} = await readWhole(store, openable, this.#keys, {signal, onBytes});
    const {tables, rows} = totals(contents);
    const compared = openable.manifest
      ? 'every digest and row count as in the manifest'
      : 'authentic; a backup of the older form has no digests to compare';
    return `${openable.backup.key}: ${tables} tables, ${rows} rows, ${compared}`;
  }

  async #checkRestore(): Promise<string> {
    const {scratch} = this.#settings;
    if (!this.#openable || this.#status('integrity') !== 'passed') throw new Skipped('the stored backup did not pass');
    if (scratch.on === 'nothing') {
      throw new Skipped('there is no server to try it on: set TEST_DATABASE_URL, or use --target or --scratch local');
    }
    return this.#trial.run(this.#openable, scratch);
  }

  /** Only a verification that came to the backup itself says something about it. */
  async #store(): Promise<void> {
    if (!this.#found || (!this.#isBad && !this.#isProved())) return;
    const {key} = this.#found;
    const verification: Verification = {
      version: '2.0',
      backup: key,
      verifiedAt: this.#startedAt.toISOString(),
      result: this.#isBad ? 'failed' : 'proved',
      toolVersion: this.#runtime.toolVersion,
      serverVersion: this.#trial.serverVersion,
      ...(this.#trial.recoveryMs === undefined ? {} : {recoveryMs: this.#trial.recoveryMs}),
      steps: this.#steps,
    };
    try {
      const sealed = sealVerification(verification, verificationSealingKey(this.#keys.current));
      await this.#stores.backups.replace(verificationKey(key), Buffer.from(sealed));
    } catch (error) {
      this.#warn(`the result could not be stored beside the backup: ${asBackupError(error).message}`);
    }
  }
}

/** Whether an error says that what is stored of a backup is bad. One without its manifest may not be finished yet. */
function isDamage({kind, code}: BackupError, {seal}: Backup): boolean {
  if (code === 'BACKUP_INCOMPLETE') return false;
  // A key of ours sealed the manifest: an object that names other keys only is not the one that was stored.
  if (code === 'WRONG_KEY') return seal === 'verified';
  return kind === 'integrity' || kind === 'verification';
}

function describeFinding(finding: Finding): string {
  return finding.isGood ? finding.text : `WARNING: ${finding.text}`;
}

/** Writes, reads back and deletes a small object. */
async function probe(store: ObjectStore): Promise<void> {
  const key = `loma-backup-probe/${randomBytes(8).toString('hex')}`;
  const body = randomBytes(64);
  await store.create(key, body, 'application/octet-stream');
  try {
    const read = await readSmall(store, key, body.length);
    if (!read.equals(body)) {
      throw new BackupError('What was written does not read back', {
        code: 'STORAGE_FAILED',
        kind: 'storage',
        reason: store.description,
      });
    }
  } finally {
    await store.delete(key).catch((error) => {
      // A lock rule of the bucket keeps everything, the probe too.
      if (!(error instanceof BackupError && error.code === 'OBJECT_LOCKED')) throw error;
    });
  }
}
