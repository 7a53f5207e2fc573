/**
 * What tables, views and sequences a dump defines, and what belongs to what: read from its beginning, before the first row.
 * pg_dump writes all definitions of tables there; what comes after the rows (indexes, foreign keys) names its table itself.
 */
import {type EntryRules, type FilteredEntry, filterEntries} from './entry-filter.ts';
import {I, keyOf, Q, unquote} from './sql-names.ts';

export type RelationKind = 'table' | 'partitioned table' | 'foreign table' | 'view' | 'materialized view' | 'sequence';

/** A table, view or sequence. */
export interface Relation {
  /** Schema-qualified and quoted, as the dump writes it. */
  text: string;
  kind: RelationKind;
  /** Whether the dump drops it at its beginning, as one made with --clean does. */
  isDropped: boolean;
  /** Key of the table whose column owns this sequence. */
  ownedBy: string | undefined;
  /** Key of the partitioned table that this is a partition of. */
  partitionOf: string | undefined;
}

export interface Outline {
  /** By key (see `keyOf`). */
  relations: Map<string, Relation>;
  /** Names of schemas that are made or used, without quotes. */
  schemas: Set<string>;
}

const dropPattern = new RegExp(`^DROP (TABLE|FOREIGN TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE) (?:IF EXISTS )?${Q};`);
const createPattern = new RegExp(
  `^CREATE (?:OR REPLACE )?(?:UNLOGGED |RECURSIVE )?(TABLE|FOREIGN TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE) ${Q}`,
);
const schemaPattern = new RegExp(`^CREATE SCHEMA ${I};`);
const ownedByPattern = new RegExp(String.raw`^ALTER SEQUENCE ${Q} OWNED BY ${Q}\.`);
const identityPattern = new RegExp(
  String.raw`^ALTER TABLE (?:ONLY )?${Q} ALTER COLUMN ${I} ADD GENERATED [A-Z ]+ AS IDENTITY \(\s+SEQUENCE NAME ${Q}\n`,
);
const attachPattern = new RegExp(`^ALTER TABLE (?:ONLY )?${Q} ATTACH PARTITION ${Q} `);

/** Reads the beginning of a dump. */
export class OutlineReader implements EntryRules {
  readonly outline: Outline = {relations: new Map(), schemas: new Set()};
  /** Gives nothing; is to be fed until `isDone`. */
  readonly stage = filterEntries(this);
  readonly #onDone: () => void;
  #isDone = false;

  /** @param onDone is told when the rows begin: there is nothing more to learn */
  constructor(onDone: () => void) {
    this.#onDone = onDone;
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  preamble(statement: string): boolean {
    const drop = dropPattern.exec(statement);
    if (drop) this.#add(drop[1] ?? '', drop[2] ?? '').isDropped = true;
    return false;
  }

  entry({sql}: FilteredEntry): 'drop' {
    const [schema] = groups(schemaPattern, sql);
    const [owned, owner] = groups(ownedByPattern, sql);
    const [identityTable, , identity] = groups(identityPattern, sql);
    const [parent, partition] = groups(attachPattern, sql);
    const [kind, name] = groups(createPattern, sql);
    if (kind && name) {
      const relation = this.#add(kind, name);
      if (/\)\nPARTITION BY (RANGE|LIST|HASH) /.test(sql)) relation.kind = 'partitioned table';
    } else if (schema) this.outline.schemas.add(unquote(schema));
    else if (owned && owner) this.#add('SEQUENCE', owned).ownedBy = keyOf(owner);
    else if (identityTable && identity) this.#add('SEQUENCE', identity).ownedBy = keyOf(identityTable);
    else if (parent && partition) this.#add('TABLE', partition).partitionOf = keyOf(parent);
    return 'drop';
  }

  data(): boolean {
    this.end();
    return false;
  }

  end(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#onDone();
  }

  #add(kind: string, text: string): Relation {
    const key = keyOf(text);
    const known = this.outline.relations.get(key);
    if (known) return known;
    const relation: Relation = {
      text,
      kind: kind.toLowerCase() as RelationKind,
      isDropped: false,
      ownedBy: undefined,
      partitionOf: undefined,
    };
    this.outline.relations.set(key, relation);
    this.outline.schemas.add(schemaOf(text));
    return relation;
  }
}

/** Of a name as the dump writes it: the schema, without quotes. */
export function schemaOf(text: string): string {
  return unquote(new RegExp(`^${I}`).exec(text)?.[1] ?? '');
}

/** What a pattern found, without the whole; nothing when it did not fit. */
export function groups(pattern: RegExp, text: string): (string | undefined)[] {
  return pattern.exec(text)?.slice(1) ?? [];
}
