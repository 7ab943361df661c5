//! Spelling of comments, strings and documents: British with `-ise`, and without common misspellings.
//!
//! ```text
//!  lines of text ──► without quotes, code, paths and identifiers ──► words ──► parts and words of the lists
//! ```
//!
//! The lists lack pairs that have another spelling in APIs: *authorize* (HTTP), *serialize* (serde), *license* (also a
//! verb), *program*, *dialog*.

use std::collections::BTreeMap;

use crate::text::TextLine;

/// Texts of the official libraries, which stay as they are.
const QUOTES: [&str; 2] = ["Handshake was canceled", "Invocation canceled"];

/// Parts of American words, each with the British part.
const AMERICAN_PARTS: &str = "
    acknowledgment acknowledgement, aluminum aluminium, analyz analys, apologiz apologis, armor armour,
    artifact artefact, behavior behaviour, canceled cancelled, canceling cancelling, capitaliz capitalis,
    categoriz categoris, center centre, centraliz centralis, channeled channelled, characteriz characteris,
    color colour, criticiz criticis, customiz customis, defense defence, dialed dialled, dialing dialling,
    emphasiz emphasis, endeavor endeavour, enrollment enrolment, equaliz equalis, favor favour, finaliz finalis,
    flavor flavour, formaliz formalis, fueled fuelled, fulfillment fulfilment, generaliz generalis,
    globaliz globalis, harbor harbour, harmoniz harmonis, idealiz idealis, initializ initialis,
    installment instalment, judgment judgement, labeled labelled, labeling labelling, legaliz legalis,
    leveled levelled, leveling levelling, localiz localis, maneuver manoeuvre, marvelous marvellous,
    materializ materialis, maximiz maximis, memoriz memoris, minimiz minimis, modeled modelled,
    modeling modelling, modulariz modularis, monetiz monetis, neighbor neighbour, neutraliz neutralis,
    normaliz normalis, offense offence, optimiz optimis, organiz organis, paralleliz parallelis, paralyz paralys,
    parameteriz parameteris, penaliz penalis, personaliz personalis, prioritiz prioritis, randomiz randomis,
    rationaliz rationalis, realiz realis, recogniz recognis, regulariz regularis, rumor rumour, sanitiz sanitis,
    scrutiniz scrutinis, signaled signalled, signaling signalling, skeptic sceptic, skillful skilful,
    specializ specialis, stabiliz stabilis, standardiz standardis, summariz summaris, symboliz symbolis,
    synchroniz synchronis, synthesiz synthesis, theater theatre, tokeniz tokenis, totaled totalled,
    traveled travelled, traveler traveller, traveling travelling, tunneled tunnelled, tunneling tunnelling,
    utiliz utilis, vectoriz vectoris, virtualiz virtualis, visualiz visualis, willful wilful";

/// American words and second forms of a word, each with the form used here.
const AMERICAN_WORDS: &str = "
    catalog catalogue, catalogs catalogues, cataloged catalogued, fiber fibre, fibers fibres, fulfill fulfil,
    fulfills fulfils, gray grey, hand-over handover, hand-overs handovers, honor honour, honors honours,
    honored honoured, honoring honouring, humor humour, labor labour, liter litre, roll-out rollout,
    roll-outs rollouts, time-out timeout, time-outs timeouts";

/// Parts of misspelt words, each with the correct part.
const MISSPELT_PARTS: &str = "
    accross across, acheiv achiev, adress address, agressiv aggressiv, apparant apparent,
    arguement argument, authetic authentic, availible available, avaliable available,
    beacuse because, becuase because, begining beginning, beleive believe, buisness business, calender calendar,
    cancelation cancellation, charachter character, comitted committed, comming coming, commited committed,
    compatability compatibility, concious conscious, conection connection, consistant consistent,
    correclty correctly, corespond correspond, databse database, decison decision, definately definitely,
    defualt default, desciption description, destory destroy, developement development, diffrent different,
    disapear disappear, dissapear disappear, embarass embarrass, enviroment environment, excede exceed,
    existance existence, explicitely explicitly, extention extension, familar familiar, foward forward,
    fucntion function, funtion function, garantee guarantee, gaurantee guarantee, goverment government, happend happened, heirarch hierarch, identifer identifier, immediatly immediately,
    implemention implementation, implmement implement, incomming incoming, independant independent,
    infomation information, inital initial, intial initial, interupt interrupt, knowlege knowledge,
    langauge language, lenght length, maintainance maintenance, maintenence maintenance, managment management,
    mesage message, miminum minimum, minumum minimum, mispell misspell, mulitple multiple, mutiple multiple,
    neccess necess, necesar necessar, negociat negotiat, noticable noticeable, nubmer number, occassion occasion,
    occurance occurrence, occured occurred, occurence occurrence, occuring occurring,
    opertion operation, orginal original, overide override, paralel parallel, paramater parameter,
    paramter parameter, parralel parallel, parrallel parallel, pasword password, peice piece,
    perfomance performance, permanant permanent, persistant persistent, posible possible, preceed precede,
    prefered preferred, preformance performance, priviledge privilege, privilage privilege, proccess process,
    procotol protocol, propery property, protcol protocol, publically publicly, reccomend recommend,
    recieve receive, recomend recommend, refered referred, refrence reference, relevent relevant,
    repitition repetition, reponse response, requried required, resouce resource, responce response,
    retreive retrieve, rythm rhythm, sentance sentence, seperat separat, similiar similar, sofware software,
    specifc specific, strenght strength, subsequant subsequent, succesful successful, sucess success,
    supress suppress, suprise surprise, sytem system, systme system, temporaly temporarily, thier their,
    threshhold threshold, timout timeout, tommorow tomorrow, transfered transferred, transmited transmitted,
    truely truly, udpate update, unecessary unnecessary, unkown unknown, unsuported unsupported, untill until,
    usualy usually, verison version, wierd weird, writen written,
    writting writing";

/// Misspelt words, each with the correct form.
const MISSPELT_WORDS: &str = "
    doesnt doesn't, dont don't, isnt isn't, higer higher, pubic public, shoud should, teh the, therefor therefore,
    usefull useful, wether whether, wich which";

/// Short words that no sentence repeats.
const NEVER_TWICE: [&str; 9] = ["the", "an", "of", "to", "is", "are", "and", "for", "with"];

/// Wrong parts and words with their correct forms.
struct Lists {
    parts: Vec<(&'static str, &'static str)>,
    words: BTreeMap<&'static str, &'static str>,
}

/// Returns the spelling mistakes in these lines, each with its place and the correct form.
pub(crate) fn mistakes(lines: &[TextLine]) -> Vec<String> {
    let lists = Lists::new();
    let mut mistakes = Vec::new();
    for line in lines.iter().filter(|line| !line.is_fenced) {
        for (wrong, correct) in lists.mistakes(&line.text) {
            mistakes.push(format!("{}:{}: \"{wrong}\": {correct}", line.path.display(), line.line));
        }
    }
    mistakes
}

impl Lists {
    fn new() -> Self {
        let parts = [AMERICAN_PARTS, MISSPELT_PARTS];
        let words = [AMERICAN_WORDS, MISSPELT_WORDS];
        Self { parts: parts.into_iter().flat_map(pairs).collect(), words: words.into_iter().flat_map(pairs).collect() }
    }

    /// Returns the wrong words of a text with their correct forms.
    fn mistakes(&self, text: &str) -> Vec<(String, String)> {
        let text = QUOTES.iter().fold(text.to_owned(), |text, quote| text.replace(quote, " "));
        let wrong = words(&text).into_iter().filter_map(|word| self.corrected(&word).map(|correct| (word, correct)));
        wrong.chain(repeated(&text)).collect()
    }

    fn corrected(&self, word: &str) -> Option<String> {
        let whole = |word: &str| self.words.get(word).map(|correct| (*correct).to_owned());
        let part = || {
            let (wrong, correct) = self.parts.iter().find(|(wrong, _)| word.contains(wrong))?;
            Some(word.replace(wrong, correct))
        };
        whole(word).or_else(|| word.split('-').find_map(whole)).or_else(part)
    }
}

/// Splits a list into pairs.
fn pairs(list: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    list.split(',').filter_map(|pair| pair.trim().split_once(' '))
}

/// Returns the words of a text in lower case, without paths, addresses and identifiers.
fn words(text: &str) -> Vec<String> {
    let chunks = text.split_whitespace().filter(|chunk| !chunk.contains(['/', '_', '=']) && !chunk.contains("::"));
    let words = chunks.flat_map(|chunk| chunk.split(|c: char| !c.is_alphabetic() && c != '-' && c != '\''));
    let words = words.map(|word| word.trim_matches(['-', '\'']));
    let is_plain = |word: &&str| !word.is_empty() && !word.chars().skip(1).any(char::is_uppercase);
    words.filter(is_plain).map(str::to_lowercase).collect()
}

/// Returns short words that directly follow themselves.
fn repeated(text: &str) -> Vec<(String, String)> {
    let text = text.to_lowercase();
    let following = text.split_whitespace().skip(1);
    let twice = text.split_whitespace().zip(following).filter(|(one, next)| one == next && NEVER_TWICE.contains(one));
    twice.map(|(word, _)| (format!("{word} {word}"), word.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::document::Document;
    use crate::source::Crate;
    use crate::text;

    fn found(text: &str) -> Vec<String> {
        Lists::new().mistakes(text).into_iter().map(|(wrong, correct)| format!("{wrong}: {correct}")).collect()
    }

    #[test]
    fn every_listed_word_is_found_and_its_correct_form_is_not() {
        let lists = [AMERICAN_PARTS, AMERICAN_WORDS, MISSPELT_PARTS, MISSPELT_WORDS];
        for list in lists {
            assert_eq!(pairs(list).count(), list.split(',').count(), "an entry is no pair");
            for (wrong, correct) in pairs(list) {
                assert_ne!(found(&format!("A {wrong}, then.")), [""; 0], "{wrong}");
                assert_eq!(found(&format!("A {correct}, then.")), [""; 0], "{correct} for {wrong}");
            }
        }
        assert!(lists.into_iter().flat_map(pairs).count() > 250);
    }

    #[test]
    fn a_word_is_found_in_any_form_and_place() {
        for (text, expected) in [
            ("Colors differ.", "colors: colours"),
            ("an unoptimized build", "unoptimized: unoptimised"),
            ("(recieved)", "recieved: received"),
            ("a client-behavior-test", "client-behavior-test: client-behaviour-test"),
            ("its time-outs", "time-outs: timeouts"),
            ("it dont work", "dont: don't"),
            ("to the the node", "the the: the"),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }

    #[test]
    fn identifiers_addresses_quotes_and_british_words_pass() {
        for text in [
            "https://example.com/color and a/behavior",
            "ColorScheme, color_scheme, color=red, Color::Red",
            "Handshake was canceled.",
            "*Invocation canceled due to the connection*",
            "colour, behaviour, normalised, dialled, timeout, authorization, serialized, a licence, that that",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn planted_comments_strings_and_documents_are_checked_outside_of_code() {
        let source = "//! The color of it.\n// See `color`, a color of one.\n/// Draws.\n///\n/// ```\n/// color();\n/// ```\n\
                      fn f() { g(\"the behavior of it\") }\n#[cfg(test)]\nmod tests { const B: &str = \"a color\"; }";
        let page = "# Behavior\n```text\ncolor\n```\nSee `color`.\n";
        let documents = [Document { path: PathBuf::from("page.md"), text: page.into() }];
        let lines = text::lines(&[Crate::planted(&[("lib.rs", source)])], &documents);
        let expected = [
            "lib.rs:1: \"color\": colour",
            "lib.rs:2: \"color\": colour",
            "lib.rs:8: \"behavior\": behaviour",
            "page.md:1: \"behavior\": behaviour",
        ];
        assert_eq!(mistakes(&lines), expected);
    }
}
