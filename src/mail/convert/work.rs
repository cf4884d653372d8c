//! A conversion as it goes on: chunks in, pass after pass, until it is known what to send. It can be
//! left and dropped after any chunk.

use std::sync::Arc;

use super::emit::Emitter;
use super::limits::{Limit, MAX_EXTRA, grown};
use super::lines::Lines;
use super::plan::{Plan, Planner};
use super::whereabouts::{MustGo, Whereabouts};
use super::{BodyTraits, Conversion, Hop, Octets, SignedConversion};
use crate::mail::binary::is_binary;

/// A conversion before its result is known. The caller gives it the whole body by
/// [`Work::push`], in chunks as it likes, then asks [`Work::end_pass`] what comes next.
pub struct Work {
    hop: Hop,
    /// What must go.
    must: MustGo,
    /// Without it the message cannot leave: else it is only better.
    needed: bool,
    /// Bytes of the body.
    size: u64,
    step: Step,
    limit: Option<(Limit, Whereabouts)>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("size", &self.size).field("limit", &self.limit).finish_non_exhaustive()
    }
}

enum Step {
    Planning(Box<Planner>),
    Counting(Box<Counting>),
}

/// What comes after a pass over the body.
#[derive(Debug)]
pub enum Pass {
    /// The body is needed again from its start.
    Again(Box<Work>),
    /// The result.
    Done(Conversion),
}

impl Work {
    /// Begins, unless what there is to know of the body tells already: then the result.
    ///
    /// # Errors
    /// No error: the result, [`Conversion::NotNeeded`].
    pub fn begin(size: u64, traits: BodyTraits, hop: Hop) -> Result<Work, Conversion> {
        // A transaction with SMTPUTF8 covers 8-bit headers and bodies (RFC 6531 §3.1: 8BITMIME comes with it).
        let covered = hop.eight_bit || (hop.smtputf8 && hop.smtputf8_asked) || hop.octets == Octets::Taken;
        let content = !covered && (traits.eight_bit_header || traits.eight_bit_body);
        let fields = traits.eight_bit_header && (content || !hop.smtputf8);
        let (binary, long) = (hop.octets == Octets::NotTaken, hop.octets != Octets::Taken);
        let must = MustGo { fields, content, long, binary };
        let needed = content || (binary && traits.binary) || (must.fields && hop.smtputf8_asked);
        if !(must.fields || content || binary || (long && traits.long_line)) {
            return Err(Conversion::NotNeeded);
        }
        // The header sections of parts are content to a host.
        let must = MustGo { fields: must.fields || content, ..must };
        let step = Step::Planning(Box::new(Planner::new(must)));
        Ok(Work { hop, must, needed, size, step, limit: None })
    }

    /// Takes the next chunk of the body. False: no more is needed in this pass.
    pub fn push(&mut self, chunk: &[u8]) -> bool {
        if self.limit.is_none() {
            self.limit = match &mut self.step {
                Step::Planning(planner) => planner.push(chunk).err().map(|limit| (limit, planner.whereabouts())),
                Step::Counting(counting) => counting.push(chunk).err().map(|limit| (limit, counting.whereabouts())),
            };
        }
        self.limit.is_none()
    }

    /// The body is complete.
    pub fn end_pass(self) -> Pass {
        let Work { hop, must, needed, size, step, limit } = self;
        if let Some((limit, at)) = limit {
            return Pass::Done(beyond(limit, Some(&at), must, needed));
        }
        match step {
            Step::Planning(planner) => match planner.finish() {
                Err(limit) => Pass::Done(beyond(limit, None, must, needed)),
                Ok(plan) => match kept(&plan, hop, needed) {
                    Some(conversion) => Pass::Done(conversion),
                    None => {
                        let step = Step::Counting(Box::new(Counting::new(Recipe(Arc::new(plan)), size)));
                        Pass::Again(Box::new(Work { hop, must, needed, size, step, limit: None }))
                    }
                },
            },
            Step::Counting(counting) => Pass::Done(match counting.finish(needed) {
                Ok(conversion) => conversion,
                Err(limit) => beyond(limit, None, must, needed),
            }),
        }
    }
}

/// What is not converted: the policy for signed messages decides, or nothing would be better for it.
fn kept(plan: &Plan, hop: Hop, needed: bool) -> Option<Conversion> {
    if plan.must.binary && plan.first_change == 0 && !needed {
        return Some(Conversion::NotNeeded);
    }
    if plan.must.fields && !needed && (plan.breaks_signature || plan.unknown_text) {
        return Some(Conversion::Fold);
    }
    match hop.signed {
        _ if !plan.breaks_signature => None,
        SignedConversion::Bounce => Some(Conversion::Refused {
            enhanced: "5.6.3",
            text: format!(
                "the message is signed and would have to be converted for this host: {} is not what the host takes",
                Whereabouts::of(plan.first_change, None)
            ),
        }),
        SignedConversion::Convert => (!needed).then_some(Conversion::Fold),
    }
}

/// What becomes of a message that is beyond a limit.
fn beyond(limit: Limit, at: Option<&Whereabouts>, must: MustGo, needed: bool) -> Conversion {
    if !needed {
        return Conversion::Fold;
    }
    let (what, enhanced) = match must {
        MustGo { binary: true, .. } => ("take binary data (BINARYMIME)", "5.6.3"),
        MustGo { content: true, .. } => ("take 8-bit data", limit.enhanced()),
        _ => ("offer SMTPUTF8", limit.enhanced()),
    };
    let at = at.map(|at| format!("{at}: ")).unwrap_or_default();
    let text = format!("the host does not {what} and the message cannot be converted: {at}{limit}");
    Conversion::Refused { enhanced, text }
}

/// How a converted message is made of the stored one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipe(Arc<Plan>);

impl Recipe {
    /// Makes it, from the start.
    pub fn emitter(&self) -> Emitter {
        Emitter::new(self.0.clone())
    }

    /// Makes all of it, for a body in memory that is small.
    ///
    /// # Errors
    /// A bound that counting has not met: it is not the body that was planned.
    pub fn whole(&self, body: &[u8]) -> Result<Vec<u8>, Limit> {
        let (mut emitter, mut whole, mut out, mut at) = (self.emitter(), Vec::new(), Vec::new(), 0);
        while at < body.len() {
            at += emitter.push(&body[at..], &mut out)?;
            whole.append(&mut out);
        }
        emitter.finish(&mut out)?;
        whole.append(&mut out);
        Ok(whole)
    }
}

/// Makes the result without keeping it.
struct Counting {
    recipe: Recipe,
    emitter: Emitter,
    out: Vec<u8>,
    size: u64,
    from: u64,
    scan: Scan,
}

impl Counting {
    fn new(recipe: Recipe, from: u64) -> Counting {
        let emitter = recipe.emitter();
        let scan = Scan { binary: recipe.0.must.binary, ..Scan::default() };
        Counting { recipe, emitter, out: Vec::new(), size: 0, from, scan }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), Limit> {
        let mut at = 0;
        while at < chunk.len() {
            at += self.emitter.push(&chunk[at..], &mut self.out)?;
            self.count()?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Limit> {
        self.scan.push(&self.out);
        self.size += self.out.len() as u64;
        self.out.clear();
        let to = grown(self.from).saturating_add(MAX_EXTRA);
        if self.size > to { Err(Limit::Growth { from: self.from, to }) } else { Ok(()) }
    }

    /// Where it is.
    fn whereabouts(&self) -> Whereabouts {
        self.emitter.whereabouts()
    }

    fn finish(mut self, needed: bool) -> Result<Conversion, Limit> {
        self.emitter.finish(&mut self.out)?;
        self.count()?;
        let must = self.recipe.0.must;
        let traits = self.scan.finish();
        if (must.fields && traits.eight_bit_header) || (must.content && traits.eight_bit_body) {
            // Not known to happen, but nothing illegal leaves because of a gap in this module.
            let text = "the message could not be made 7-bit".into();
            return Ok(Conversion::Refused { enhanced: "5.6.3", text });
        }
        if must.binary && traits.binary {
            let text = "the message could not be made free of binary data".into();
            return Ok(Conversion::Refused { enhanced: "5.6.3", text });
        }
        if must.long && traits.long_line && !needed {
            return Ok(Conversion::Fold);
        }
        Ok(Conversion::Converted { recipe: self.recipe, size: self.size, traits })
    }
}

/// Finds the traits of a body that comes in chunks.
#[derive(Default)]
struct Scan {
    lines: Lines,
    traits: BodyTraits,
    /// The header section is over.
    in_body: bool,
    /// What only BINARYMIME takes is looked for, too.
    binary: bool,
}

impl Scan {
    fn push(&mut self, bytes: &[u8]) {
        let Scan { lines, traits, in_body, binary } = self;
        // It has no error to give.
        let _ = lines.push(bytes, &mut |piece| note(traits, in_body, *binary, piece));
    }

    fn finish(mut self) -> BodyTraits {
        let Scan { lines, traits, in_body, binary } = &mut self;
        let _ = lines.finish(&mut |piece| note(traits, in_body, *binary, piece));
        self.traits
    }
}

fn note(
    traits: &mut BodyTraits,
    in_body: &mut bool,
    binary: bool,
    piece: super::lines::Piece<'_>,
) -> Result<(), std::convert::Infallible> {
    if !piece.bytes.is_ascii() {
        if *in_body {
            traits.eight_bit_body = true;
        } else {
            traits.eight_bit_header = true;
        }
    }
    traits.binary |= binary && is_binary(piece.bytes);
    traits.long_line |= piece.long;
    traits.leading_dot |= piece.first && piece.bytes.starts_with(b".");
    *in_body |= piece.first && piece.bytes.is_empty();
    Ok(())
}
