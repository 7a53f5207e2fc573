/** Which tables of a backup are meant by `--table` and `--schema`. */
import {distance} from 'fastest-levenshtein';
import {BackupError} from '../errors.ts';
import {type Outline, type Relation, schemaOf} from './outline.ts';
import {keyOf, parseQualified, unquote} from './sql-names.ts';

/** What somebody asked for. */
export interface SelectionRequest {
  /** `SCHEMA.TABLE`, as it is or quoted as SQL wants it: tables, views and sequences. */
  tables: readonly string[];
  /** Everything in these schemas; their names as they are, or quoted. */
  schemas: readonly string[];
}

export interface Selection {
  /** By key: what was asked for, with the partitions of partitioned tables and the sequences that columns own. */
  relations: ReadonlyMap<string, Relation>;
  /** Schemas of which everything is chosen. */
  wholeSchemas: ReadonlySet<string>;
  /** Schemas that chosen objects are in. */
  schemas: ReadonlySet<string>;
}

/**
 * Finds what was asked for in the outline of a dump.
 * @throws BackupError NOT_IN_BACKUP, with the names that come nearest
 */
export function resolveSelection(outline: Outline, request: SelectionRequest): Selection {
  const missing: string[] = [];
  const chosen = new Set<string>();
  const named: string[] = [];
  for (const text of request.tables) {
    const found = find(outline, text);
    if (found.length === 1) named.push(found[0] as string);
    else missing.push(found.length === 0 ? noTable(outline, text) : ambiguous(text, found));
  }
  const schemas = request.schemas.map((text) => (outline.schemas.has(text) ? text : unquote(text)));
  for (const name of schemas) {
    if (!outline.schemas.has(name)) missing.push(noSchema(outline, name));
    for (const [key, {text}] of outline.relations) if (schemaOf(text) === name) chosen.add(key);
  }
  if (missing.length > 0) throw notInBackup(missing);
  for (const key of named) chosen.add(key);
  addBelonging(outline, chosen);
  const parts = named.flatMap((key) => partOfUnchosen(outline, chosen, key) ?? []);
  if (parts.length > 0) throw chosenInPart(parts);
  const relations = new Map([...outline.relations].filter(([key]) => chosen.has(key)));
  const wholeSchemas = new Set(schemas);
  return {
    relations,
    wholeSchemas,
    schemas: new Set([...[...relations.values()].map(({text}) => schemaOf(text)), ...wholeSchemas]),
  };
}

/** A sequence by itself, whose value the table's next rows depend on: setting it is not undone with a transaction. */
function partOfUnchosen({relations}: Outline, chosen: ReadonlySet<string>, key: string): string | undefined {
  const {text, ownedBy} = relations.get(key) ?? {};
  return ownedBy === undefined || chosen.has(ownedBy) ? undefined : `${text} belongs to a column of ${ownedBy}`;
}

/** Partitions hold the rows of a partitioned table; a sequence that a column owns goes with its table. */
function addBelonging({relations}: Outline, chosen: Set<string>): void {
  for (let before = -1; before !== chosen.size; ) {
    before = chosen.size;
    for (const [key, {ownedBy, partitionOf}] of relations) {
      if (chosen.has(ownedBy ?? '') || chosen.has(partitionOf ?? '')) chosen.add(key);
    }
  }
}

function find({relations}: Outline, text: string): string[] {
  if (relations.has(keyOf(text))) return [keyOf(text)];
  return [...relations].filter(([, relation]) => plain(relation) === text).map(([key]) => key);
}

/** The name as people write it, without quotes. */
function plain({text}: Relation): string {
  const name = parseQualified(text);
  return name ? `${name.schema}.${name.name}` : text;
}

function noTable({relations}: Outline, text: string): string {
  const names = [...relations.values()].filter(({kind}) => kind !== 'sequence');
  return `it holds no table ${text}${suggestion(
    text,
    names.map((relation) => ({text: relation.text, compared: [plain(relation), parseQualified(relation.text)?.name]})),
  )}`;
}

function noSchema({schemas}: Outline, name: string): string {
  return `it holds no schema ${name}${suggestion(
    name,
    [...schemas].map((text) => ({text, compared: [text]})),
  )}`;
}

function ambiguous(text: string, found: readonly string[]): string {
  return `${text} may be any of ${found.join(', ')}: quote it as it stands here`;
}

/** Up to three names that could have been meant. */
function suggestion(text: string, names: readonly {text: string; compared: (string | undefined)[]}[]): string {
  const typed = text.toLowerCase();
  const near = names
    .map((name) => {
      const distances = name.compared.map((other = '') => distance(typed, other.toLowerCase()));
      return {text: name.text, distance: Math.min(...distances)};
    })
    .filter((name) => name.distance <= Math.max(2, typed.length / 3))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3);
  return near.length === 0 ? '' : `; did you mean ${near.map((name) => name.text).join(', ')}?`;
}

function chosenInPart(parts: readonly string[]): BackupError {
  return new BackupError('A sequence of a table is not restored without it', {
    code: 'NOT_IN_BACKUP',
    kind: 'configuration',
    reason: parts.join('\n'),
    hint: 'Choose the table: its sequences come with it. Nothing was changed.',
  });
}

function notInBackup(missing: readonly string[]): BackupError {
  return new BackupError('The backup does not hold what was chosen', {
    code: 'NOT_IN_BACKUP',
    kind: 'configuration',
    reason: missing.join('\n'),
    hint: 'Name tables as SCHEMA.TABLE, as they were when the backup was taken. Nothing was changed.',
  });
}
